# SPDX-License-Identifier: Apache-2.0
"""The HTTPS listener against clients that do not behave, and the server's own SVID."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.server_world import SERVER_ID, World, new_key, open_session, world
from troth.adapters.pinned_tls import pinned_context
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.control_plane.server import http_server, requests
from troth.control_plane.server.bundles import ServerBundles
from troth.control_plane.server.config import LimitSection
from troth.control_plane.server.issuer import SvidIssuer
from troth.control_plane.server.keys import load_or_create_keys
from troth.control_plane.server.serve import database_url, serve
from troth.control_plane.server.tls import ServerTls
from troth.errors import AuthorizationError
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.x509_svid import X509Svid


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def address(here: World) -> tuple[str, int]:
    host, _, port = here.running.url.removeprefix("https://").rpartition(":")
    return host, int(port)


async def connect(
    here: World, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    bundle = here.running.trust_bundle.read_text()
    pinned = pinned_context(bundle, SpiffeId.decode(SERVER_ID))
    return await asyncio.open_connection(*address(here), ssl=context or pinned)


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    async with asyncio.timeout(10):
        try:
            return await reader.read()
        except (ConnectionError, ssl.SSLError):
            return b""
        finally:
            await hang_up(writer)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_tls_1_2_is_not_spoken(here: World) -> None:
    async with here.serve():
        context = ssl.create_default_context(cadata=here.running.trust_bundle.read_text())
        context.check_hostname = False
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(here, context)


async def test_sessions_are_not_resumed(here: World) -> None:
    async with here.serve():
        bundle = here.running.trust_bundle.read_text()
        context = pinned_context(bundle, SpiffeId.decode(SERVER_ID))
        reader, writer = await connect(here, context)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        # Tickets would have come before the answer.
        session = writer.get_extra_info("ssl_object").session
        assert session is None or not session.has_ticket
        await hang_up(writer)


async def test_a_certificate_of_another_authority_is_turned_away(here: World) -> None:
    platform = here.platform()
    async with world() as elsewhere:
        elsewhere.endorse(platform, "maker")
        elsewhere.entries = here.entries
        async with elsewhere.serve():
            client = elsewhere.client()
            joined = await client.join(platform, new_key())
            await client.close()
    async with here.serve(), here.web(identity=joined.svid) as web:
        with pytest.raises(httpx.HTTPError):
            await web.get("/livez")


async def test_the_servers_own_svid_is_no_members(here: World) -> None:
    async with here.serve() as running:
        keys = running.context.keys
        svid = running.context.issuer.issue_own(
            keys.tls_key.public_key(), now=datetime.now(UTC), ttl=timedelta(hours=1)
        )
        own = X509Svid(chain=svid.chain, private_key=keys.tls_key)
        async with here.web(identity=own) as web:
            response = await web.get("/v1/nodes")
            assert (response.status_code, response.json()["code"]) == (403, "refused")


async def test_a_connection_that_says_nothing_is_ended(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MAX_SILENCE_SECONDS", 0.1)
    async with here.serve(), here.web() as web:
        reader, writer = await connect(here)
        assert await ended(reader, writer) == b""
        # One that has spoken may be idle for longer.
        assert (await web.get("/livez")).status_code == 200
        await asyncio.sleep(0.2)
        assert (await web.get("/livez")).status_code == 200


async def test_a_body_that_does_not_come_is_not_waited_for(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_BODY_SECONDS", 0.1)
    async with here.serve():
        reader, writer = await connect(here)
        writer.write(b"POST /v1/join/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
        async with asyncio.timeout(10):
            answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400")
        await hang_up(writer)


async def test_connections_are_bounded(here: World) -> None:
    here.options["limits"] = LimitSection(connections=2)
    async with here.serve(), here.web() as web:
        held = [await connect(here) for _ in range(2)]
        with pytest.raises(httpx.HTTPError):
            await web.get("/livez")
        for _, writer in held:
            await hang_up(writer)


async def test_a_reader_that_goes_away_is_forgotten(here: World) -> None:
    platform = here.platform()
    here.options["heartbeat_seconds"] = 0.05
    async with here.serve() as running:
        client = here.client()
        await client.join(platform, new_key())
        gauge: Any = running.context.metrics.streams
        feed = client.feed()
        await anext(feed)
        assert gauge._value.get() == 1
        await feed.aclose()
        await client.close()
        async with asyncio.timeout(10):
            while gauge._value.get():  # the server tells nobody
                await asyncio.sleep(0.02)


async def test_a_node_whose_svid_has_ended_joins_again(here: World) -> None:
    platform = here.platform()
    async with here.serve():
        client = here.client()
        joined = await client.join(platform, new_key())
        moved = _Clock(joined.svid.not_after + timedelta(seconds=1))
        late = here.client(clock=moved)
        await late.use_identity(joined.svid)
        again = await late.join(platform, new_key())
        assert again.node_id == joined.node_id
        await client.close()
        await late.close()


class _Clock:
    def __init__(self, time: datetime) -> None:
        self._time = time

    def now(self) -> datetime:
        return self._time

    def monotonic(self) -> float:
        return self._time.timestamp()


def test_the_servers_svid_is_renewed_after_a_third_of_its_life(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    keys = load_or_create_keys(tmp_path, TrustDomain("mesh.example"), now=now, random=os.urandom)
    bundles = ServerBundles(keys.authorities, now=now)
    issuer = SvidIssuer(keys, bundles=bundles, random=os.urandom, allow_insecure=False)
    life = timedelta(hours=3)
    tls = ServerTls(keys, issuer, directory=tmp_path, lifetime=life, now=now)
    file = tmp_path / "tls.svid.pem"
    first = file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    tls.renew_if_due(now + timedelta(minutes=59))
    assert file.read_bytes() == first
    tls.renew_if_due(now + timedelta(minutes=60))
    assert file.read_bytes() != first


async def _announced(here: World) -> tuple[str, str]:
    ready_file = here.directory / "ready.json"
    here.options["ready_file"] = str(ready_file)
    config = here.config()
    stop, lines = asyncio.Event(), []

    def ready(line: str) -> None:
        lines.append(line)
        stop.set()

    async with asyncio.timeout(20):
        await serve(
            config,
            registry=lambda: SqlRegistry(database_url(config)),
            ready=ready,
            stop=stop,
        )
    return lines[0], await asyncio.to_thread(ready_file.read_text)


async def test_serving_announces_itself_and_stops_when_told(here: World) -> None:
    line, written = await _announced(here)
    assert written == line + "\n"
    told = json.loads(line)
    assert told["ready"] is True
    assert told["spiffe_id"] == SERVER_ID
    _check_files(told)


def _check_files(told: dict[str, str]) -> None:
    assert Path(told["trust_bundle"]).read_text().startswith("-----BEGIN CERTIFICATE")
    assert json.loads(Path(told["result_keys"]).read_text())["keys"][0]["kid"]
    assert not Path(told["admin_socket"]).exists()


async def test_keys_and_members_outlive_a_restart(here: World) -> None:
    platform = here.platform()
    async with here.serve() as running:
        client = here.client()
        joined = await client.join(platform, new_key())
        await client.close()
        head = running.context.registry.verify_log()
    async with here.serve() as running, here.web(identity=joined.svid) as web:
        assert (await web.get("/v1/nodes")).status_code == 200
        assert running.context.registry.verify_log(head=head).sequence >= head.sequence
        session = await open_session(web)
        assert session.session


async def test_what_a_stranger_may_not_do(here: World) -> None:
    async with here.serve(), here.web() as web:
        for method, path in (("GET", "/v1/feed"), ("GET", "/v1/nodes"), ("POST", "/v1/feed/ack")):
            response = await web.request(method, path)
            assert (response.status_code, response.json()["code"]) == (403, "refused")
            assert "detail" not in response.json()
        client = here.client()
        with pytest.raises(AuthorizationError):
            await client.nodes()
        await client.close()


async def test_a_request_that_has_begun_is_answered_although_the_server_stops(here: World) -> None:
    async with here.serve():
        reader, writer = await connect(here)
        writer.write(b"POST /v1/join/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n")
        asked = asyncio.Event()
        worker = here.running.context.registry_worker
        run = worker.run

        async def slow(call: Any, *args: Any, **kwargs: Any) -> Any:
            asked.set()
            await asyncio.sleep(1)  # longer than an idle connection is left open
            return await run(call, *args, **kwargs)

        worker.run = slow  # type: ignore[method-assign]  # a registry on a slow disk
        writer.write(b"{}")
        async with asyncio.timeout(10):
            await asked.wait()
        worker.run = run  # type: ignore[method-assign]  # as above
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
    await hang_up(writer)


async def test_a_request_that_never_ends_is_not_waited_for_without_end(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "DRAIN_SECONDS", 0.1)
    async with here.serve():
        reader, writer = await connect(here)
        writer.write(b"POST /v1/join/sessions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n")
        await writer.drain()
        await here.ask("GET", "/v1/nodes")
    assert await ended(reader, writer) == b""
