# SPDX-License-Identifier: Apache-2.0
"""Judging proofs: identity, key, model, result. The exchange is the real one, in memory."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.attested_pair import (
    Setting,
    certificates,
    channel_peer,
    der_chain,
    pair,
    session,
)
from support.attested_world import Node, World
from troth.errors import ApiMisuseError, ChainError
from troth.evidence.simulator import CcaOptions
from troth.formats import cmw
from troth.formats.signer import LocalSigner
from troth.mesh.passport import TrustedVerifier
from troth.mesh.tier import Tier
from troth.mesh.verifier_delegation import VerifierDelegation
from troth.testing.lab import SoftwareDevice
from troth.tls import AttestationPolicy, ProofKey
from troth.tls.core.binding import BindingKind
from troth.tls.core.exchange import Ended
from troth.tls.judge import Judge
from troth.tls.peer import AttestedPeer, ChannelPeer
from troth.tls.prover import Prover


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def cloud(world: World) -> Node:
    return world.join("cloud", world.platform(CcaOptions()))


@pytest.fixture(scope="module")
def edge(world: World) -> Node:
    return world.join("edge")


async def judged(
    world: World, server: Setting, client: Node, policy: AttestationPolicy, **how: Any
) -> AttestedPeer | Ended:
    """Let `client` judge `server`; return whom it found, or why it refused."""
    async with pair(world, Setting(client, policy), server, **how) as (one, other):
        try:
            return await one.opened if await _settled(one) else await one.ended
        finally:
            other.driver.stop()


async def _settled(party: Any) -> bool:
    async with asyncio.timeout(5):
        await asyncio.wait({party.opened, party.ended}, return_when=asyncio.FIRST_COMPLETED)
    return bool(party.opened.done())


class Showing(Prover):
    """A prover that shows a payload of a test's choice."""

    def __init__(self, credentials: Any, payload: bytes) -> None:
        super().__init__(credentials)
        self._shown = payload

    async def _payload(self, *_: Any) -> bytes:  # type: ignore[override]
        return self._shown


async def test_a_separate_key_is_one_that_the_authority_calls_so(world: World, cloud: Node) -> None:
    device = SoftwareDevice()
    guarded = world.join("edge", device=device)
    found = await judged(world, Setting(guarded, world.policy()), cloud, world.policy())
    assert isinstance(found, AttestedPeer)
    assert found.proof_key == "separate"
    assert device.signatures
    strict = world.policy(proof_key="separate")
    found = await judged(world, Setting(guarded, world.policy()), cloud, strict)
    assert isinstance(found, AttestedPeer)


async def test_a_second_key_in_memory_is_not_separate(world: World, cloud: Node) -> None:
    """Whoever stole one key from memory also stole the next: two keys alone prove nothing."""
    platform = world.platform()
    first, second = world.join("edge", platform), world.join("edge", platform)
    assert first.svid.spki != second.svid.spki
    credentials = world.credentials(
        first,
        passport=second.passport,
        proof_key=_software_key(second),
    )
    setting = Setting(first, world.policy(), credentials=credentials)
    found = await judged(world, setting, cloud, world.policy())
    assert isinstance(found, AttestedPeer)
    assert found.proof_key == "tls"
    found = await judged(world, setting, cloud, world.policy(proof_key="separate"))
    assert isinstance(found, Ended)
    assert "no authority calls separate" in found.why


def _software_key(node: Node) -> Any:
    assert node.svid.private_key is not None
    local = LocalSigner(node.svid.private_key)

    class Signer:
        algorithm = local.algorithm

        async def __call__(self, data: bytes) -> bytes:
            return local.sign(data)

    return ProofKey(svid=node.svid, sign=Signer())


def test_a_certificate_for_a_proof_key_has_no_business_in_tls(world: World) -> None:
    guarded = world.join("edge", device=SoftwareDevice())
    assert guarded.proof_key is not None
    judge = Judge(world.policy(), world.bundles)
    with pytest.raises(ChainError, match="proof key"):
        judge.identify(der_chain(guarded.proof_key.svid), now=datetime.now(UTC))
    assert judge.identify(der_chain(guarded.svid), now=datetime.now(UTC)).not_after


async def test_a_proof_of_another_node_with_the_same_spiffe_id_is_refused(
    world: World, cloud: Node
) -> None:
    one, other = (world.join("edge", node_id=name) for name in ("edge-1", "edge-2"))
    credentials = world.credentials(other)
    setting = Setting(one, world.policy(), credentials=credentials)
    found = await judged(world, setting, cloud, world.policy())
    assert isinstance(found, Ended)
    assert "TLS showed node edge-1, the proof is by node edge-2" in found.why
    same = Setting(other, world.policy(), credentials=credentials)
    assert isinstance(await judged(world, same, cloud, world.policy()), AttestedPeer)


async def test_a_proof_by_another_spiffe_id_is_refused(
    world: World, cloud: Node, edge: Node
) -> None:
    setting = Setting(edge, world.policy(), credentials=world.credentials(world.join("other")))
    found = await judged(world, setting, cloud, world.policy())
    assert isinstance(found, Ended)
    assert "the proof is by spiffe://mesh.example/node/other" in found.why


async def test_what_was_not_asked_for_is_refused_and_not_appraised(
    world: World, cloud: Node, edge: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence = cmw.encode_cbor(
        cmw.CmwRecord(edge.platform.media_type, b"evidence", cmw.Indicator.EVIDENCE)
    )
    passport = cmw.encode_cbor(
        cmw.CmwRecord(
            "application/eat+jwt", edge.passport.encode(), cmw.Indicator.ATTESTATION_RESULTS
        )
    )
    monkeypatch.setattr(Prover, "prove_at_once", lambda *_: None)
    for payload, model in ((evidence, "passport"), (passport, "background_check")):
        monkeypatch.setattr(Prover, "_payload", Showing(None, payload)._payload)
        found = await judged(
            world, Setting(edge, world.policy(model="svid_only")), cloud, world.policy(model=model)
        )
        assert isinstance(found, Ended)
        assert "which was not asked for" in found.why
    monkeypatch.setattr(Prover, "_payload", Showing(None, passport)._payload)
    found = await judged(
        world, Setting(edge, world.policy(model="svid_only")), cloud, world.policy()
    )
    assert isinstance(found, AttestedPeer)


async def test_a_newer_svid_lengthens_a_connection_and_a_proof_key_does_not(
    world: World, cloud: Node
) -> None:
    platform = world.platform()
    shown = world.join("edge", platform)
    device = SoftwareDevice()
    guarded = world.join("edge", platform, device=device)
    found = await judged(world, Setting(guarded, world.policy()), cloud, world.policy())
    assert isinstance(found, AttestedPeer)
    assert found.deadline is not None
    assert guarded.proof_key is not None
    assert found.deadline <= min(guarded.svid.not_after, guarded.proof_key.svid.not_after)
    newer = world.join("edge", platform)
    setting = Setting(shown, world.policy(), credentials=world.credentials(newer))
    found = await judged(world, setting, cloud, world.policy())
    assert isinstance(found, AttestedPeer)
    assert found.deadline is not None
    assert found.deadline <= newer.svid.not_after


@pytest.mark.parametrize("bind", [session, certificates])
async def test_an_svid_alone_reports_the_result_in_it_where_its_verifier_is_believed(
    world: World, cloud: Node, edge: Node, bind: Any
) -> None:
    server = Setting(edge, world.policy(model="svid_only"))
    found = await judged(world, server, cloud, world.policy(model="svid_only"), bind=bind)
    assert isinstance(found, AttestedPeer)
    assert found.binding is BindingKind.CREDENTIAL
    assert found.tier is not None
    assert not found.proof_key
    nobody = world.policy(model="svid_only", verifiers=())
    found = await judged(world, server, cloud, nobody, bind=bind)
    assert isinstance(found, AttestedPeer)
    assert found.binding is BindingKind.NONE
    assert found.result is None
    start = datetime.now(UTC).replace(microsecond=0)
    elsewhere = VerifierDelegation(
        verifier="home",
        key=world.trusted.keys[0],
        site="plant",
        schemes=("tpm2",),
        tier_ceiling=Tier.MEASURED,
        not_before=start,
        not_after=start + timedelta(days=1),
    )
    bounded = world.policy(model="svid_only", verifiers=[TrustedVerifier.delegated(elsewhere)])
    found = await judged(world, server, cloud, bounded, bind=bind)
    assert isinstance(found, AttestedPeer)
    assert found.result is None
    plain = Setting(world.join("edge", svid_only=True), world.policy(model="svid_only"))
    found = await judged(world, plain, cloud, world.policy(model="svid_only"), bind=bind)
    assert isinstance(found, AttestedPeer)
    assert found.binding is BindingKind.NONE


def test_a_peer_whose_svid_nobody_dates_is_not_admitted_on_it(world: World, edge: Node) -> None:
    judge = Judge(world.policy(model="svid_only"), world.bundles)
    now = datetime.now(UTC)
    undated = ChannelPeer(spiffe_id=edge.svid.spiffe_id)
    with pytest.raises(ChainError, match="nobody says"):
        judge.judge_identity(undated, now=now)
    dated = ChannelPeer(spiffe_id=edge.svid.spiffe_id, not_after=now + timedelta(minutes=1))
    assert judge.judge_identity(dated, now=now).decision.admitted
    assert not judge.judge_identity(dated, now=now + timedelta(minutes=2)).decision.admitted


def test_names_alone_are_judged_before_anything_is_asked(world: World, edge: Node) -> None:
    now = datetime.now(UTC)
    judge = Judge(world.policy(peers=["spiffe://mesh.example/node/edge"]), world.bundles)
    assert not judge.objections(channel_peer(world, edge), now=now)
    assert not judge.objections(ChannelPeer(spiffe_id=edge.svid.spiffe_id), now=now)
    assert "SPIFFE ID" in judge.objections(channel_peer(world, world.join("edge-2")), now=now)


@pytest.mark.parametrize(
    "wrong",
    [
        {"peers": "spiffe://mesh.example/*"},
        {"verifiers": ()},
        {"model": "svid_only", "proof_key": "separate"},
        {"max_payload_octets": 0},
        {"max_payload_octets": 1 << 20},
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(world: World, wrong: dict[str, Any]) -> None:
    with pytest.raises(ApiMisuseError):
        world.policy(**wrong)


def test_what_is_known_of_a_peer_reads_as_texts(world: World, edge: Node) -> None:
    judge = Judge(world.policy(model="svid_only"), world.bundles)
    now = datetime.now(UTC)
    facts = judge.judge_identity(channel_peer(world, edge), now=now).describe()
    assert facts["binding"] == "credential"
    assert facts["node_id"] == "edge"
    assert "proof_key" not in facts
    assert all(isinstance(value, str) for value in facts.values())
