# SPDX-License-Identifier: Apache-2.0
"""Real connections of Troth, checked from the texts of the specifications alone."""

import asyncio

import pytest

from support import rfc9261
from support.attested_world import Node, World
from troth.evidence.simulator import CcaOptions
from troth.formats import cmw
from troth.tls import open_connection, start_server
from troth.tls.asyncio.engine import TlsEngine
from troth.tls.core.framing import FrameKind, FrameReader
from troth.tls.core.messages import MessageKind, decode_message
from troth.tls.core.profile import EXPAT_03


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[TlsEngine, bytearray]]:
    """What each end gave to TLS, in the clear, and its TLS."""
    ends: dict[str, tuple[TlsEngine, bytearray]] = {}
    write = TlsEngine.write

    def recording(engine: TlsEngine, data: bytes) -> None:
        ends.setdefault(engine.role.value, (engine, bytearray()))[1].extend(data)
        write(engine, data)

    monkeypatch.setattr(TlsEngine, "write", recording)
    return ends


def messages(octets: bytes) -> dict[MessageKind, bytes]:
    frames = FrameReader().feed(bytes(octets))
    exchange = [f.payload for f in frames if f.kind is FrameKind.EXCHANGE_END]
    return {message.kind: message.body for message in map(decode_message, exchange)}


@pytest.mark.parametrize("model", ["passport", "background_check"])
async def test_both_directions_hold_together_by_the_exporter_alone(
    written: dict[str, tuple[TlsEngine, bytearray]], model: str
) -> None:
    world = World()
    cloud: Node = world.join("cloud", world.platform(CcaOptions()))
    edge: Node = world.join("edge")
    server = await start_server(
        lambda _: asyncio.sleep(5),
        "127.0.0.1",
        credentials=world.credentials(edge),
        policy=world.policy(model=model),
        verifier=world.check,
    )
    async with server:
        stream = await open_connection(
            "127.0.0.1",
            server.addresses[0][1],
            credentials=world.credentials(cloud),
            policy=world.policy(model=model),
            verifier=world.check,
        )
        engine = written["client"][0]
        sent = {role: messages(octets) for role, (_, octets) in written.items()}
        for requester, prover, node in (("client", "server", edge), ("server", "client", cloud)):
            checked = rfc9261.check(
                engine.export,
                engine.hash_name,
                requester,
                sent[requester][MessageKind.REQUEST],
                sent[prover][MessageKind.PROOF],
            )
            assert checked.spki == node.svid.spki
            payload = checked.extensions[EXPAT_03.cmw_extension]
            record = cmw.decode(payload)
            assert isinstance(record, cmw.CmwRecord)
            if model == "passport":
                assert record.value == node.passport.encode()
            else:
                binder = rfc9261.binder(
                    engine.export, checked.context, checked.spki, engine.hash_name
                )
                size = node.platform.challenge_size
                assert binder[:size].ljust(size, b"\0") in record.value
        stream.writer.close()
