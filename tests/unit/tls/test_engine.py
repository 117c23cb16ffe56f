# SPDX-License-Identifier: Apache-2.0
"""TLS in memory: full handshakes only, one exporter at both ends, contexts that follow SVIDs."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from OpenSSL import SSL

from support.attested_pair import shown_chain
from support.attested_world import Node, World
from troth.errors import ApiMisuseError, ChainError, PeerError
from troth.formats.exported_authenticator import Role
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundleSet
from troth.tls.asyncio.contexts import TlsContexts
from troth.tls.asyncio.engine import TlsContext, TlsEngine


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def node(world: World) -> Node:
    return world.join("edge")


def context(world: World, node: Node, role: Role, **changes: object) -> TlsContext:
    given: dict[str, object] = {
        "role": role,
        "chain": node.svid.chain,
        "private_key": node.svid.private_key,
        "authorities": [world.authority.certificate],
        "alpn": "troth/test",
    }
    return TlsContext(**{**given, **changes})  # type: ignore[arg-type]


def shake(client: TlsEngine, server: TlsEngine) -> None:
    for _ in range(6):
        for one, other in ((client, server), (server, client)):
            one.handshake()
            other.receive(one.outgoing())


def test_both_ends_export_the_same_and_see_each_other(world: World, node: Node) -> None:
    client = TlsEngine(context(world, node, Role.CLIENT))
    server = TlsEngine(context(world, node, Role.SERVER))
    with pytest.raises(ApiMisuseError, match="before the handshake"):
        client.export("label", b"", 32)
    shake(client, server)
    assert client.export("label", b"c", 32) == server.export("label", b"c", 32)
    assert client.export("label", b"c", 32) != client.export("label", b"d", 32)
    assert client.peer_chain == server.peer_chain == shown_chain(node)
    client.write(b"hello")
    server.receive(client.outgoing())
    assert server.read() == [b"hello"]


def test_another_authority_or_no_certificate_is_a_chain_error(world: World, node: Node) -> None:
    stranger = World()
    client = TlsEngine(context(world, node, Role.CLIENT))
    foreign = TlsEngine(context(stranger, stranger.join("edge"), Role.SERVER))
    with pytest.raises((ChainError, PeerError)):
        shake(client, foreign)
    bare = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    bare.set_connect_state()
    bare.set_alpn_protos([b"troth/test"])
    server = TlsEngine(context(world, node, Role.SERVER))
    with pytest.raises(ChainError):
        _shake_bare(bare, server)


def test_a_peer_that_speaks_something_else_is_refused_in_the_handshake(
    world: World, node: Node
) -> None:
    client = TlsEngine(context(world, node, Role.CLIENT, alpn="h2"))
    server = TlsEngine(context(world, node, Role.SERVER))
    with pytest.raises(PeerError):
        shake(client, server)


def test_a_key_that_is_not_the_certificates_is_refused_at_once(world: World, node: Node) -> None:
    other = world.join("edge")
    with pytest.raises(ApiMisuseError, match="does not belong"):
        context(world, node, Role.CLIENT, private_key=other.svid.private_key)
    with pytest.raises(ApiMisuseError, match="at least one authority"):
        context(world, node, Role.CLIENT, authorities=[])


def _shake_bare(bare: SSL.Connection, engine: TlsEngine) -> None:
    for _ in range(4):
        with suppress(SSL.WantReadError):
            bare.do_handshake()
        _move(lambda: bare.bio_read(1 << 16), engine.receive)
        engine.handshake()
        data = engine.outgoing()
        if data:
            bare.bio_write(data)


def _move(read: Callable[[], bytes], to: Callable[[bytes], None]) -> None:
    try:
        to(read())
    except SSL.WantReadError:
        return


def _ticket(client_context: TlsContext, server_context: TlsContext) -> SSL.Session:
    client, server = TlsEngine(client_context), TlsEngine(server_context)
    shake(client, server)
    server.write(b"x")
    client.receive(server.outgoing())
    client.read()
    session = client._tls.get_session()
    assert session is not None
    return session


def test_a_session_of_an_earlier_connection_gives_a_full_handshake(
    world: World, node: Node
) -> None:
    """A client that keeps tickets, against our server: it has kept no session for them."""
    own, server_context = context(world, node, Role.CLIENT), context(world, node, Role.SERVER)
    session = _ticket(own, server_context)
    client, server = TlsEngine(own), TlsEngine(server_context)
    client._tls.set_session(session)
    shake(client, server)
    assert client.established
    assert server.established


@pytest.mark.parametrize("refuser", [Role.CLIENT, Role.SERVER])
def test_a_handshake_that_was_resumed_would_be_refused(
    world: World, node: Node, refuser: Role
) -> None:
    """Against a server that does resume: neither end of ours takes it for a handshake."""
    resuming = context(world, node, Role.SERVER)
    resuming.context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    resuming.context.set_session_id(b"test")
    own = context(world, node, Role.CLIENT)
    session = _ticket(own, resuming)
    client, server = TlsEngine(own), TlsEngine(resuming)
    client._tls.set_session(session)
    if refuser is Role.SERVER:
        client._saw_certificate = True
    with pytest.raises(PeerError, match="not a full TLS"):
        shake(client, server)
    assert not (client if refuser is Role.CLIENT else server).established


def test_contexts_follow_svids_and_authorities_and_nothing_else(world: World, node: Node) -> None:
    credentials = world.credentials(node)
    contexts = TlsContexts(Role.CLIENT, lambda: credentials, [TrustDomain("mesh.example")])
    first = contexts.current()
    assert contexts.current() is first
    credentials = replace(credentials, passport="another")
    assert contexts.current() is first
    credentials = world.credentials(world.join("edge"))
    second = contexts.current()
    assert second is not first
    credentials = replace(credentials, bundles=TrustBundleSet([world.authority.bundle()]))
    assert contexts.current() is not second
    credentials = replace(credentials, bundles=TrustBundleSet([]))
    with pytest.raises(ApiMisuseError, match="authority"):
        contexts.current()
