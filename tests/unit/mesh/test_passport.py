# SPDX-License-Identifier: Apache-2.0
import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from support.attested_world import Node, World
from troth.errors import BindingError, DecodeError, FreshnessError, SignatureError
from troth.mesh.passport import PassportReader, TrustedVerifier, read_passport


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def node(world: World) -> Node:
    return world.join("edge")


def key(node: Node) -> bytes:
    return hashlib.sha256(node.svid.spki).digest()


def test_a_genuine_passport_names_its_verifier_in_our_words(world: World, node: Node) -> None:
    now = datetime.now(UTC)
    passport = read_passport(
        node.passport, key_digest=key(node), verifiers=[world.trusted], now=now
    )
    assert passport.result.verifier == "home"
    assert passport.scheme == "psa"
    assert passport.result.tier.value == "measured"


def test_nobody_believed_means_no_passport(world: World, node: Node) -> None:
    now = datetime.now(UTC)
    stranger = TrustedVerifier(name="home", keys=World().trusted.keys)
    for verifiers in ([], [stranger]):
        with pytest.raises(SignatureError, match="no believed Verifier"):
            read_passport(node.passport, key_digest=key(node), verifiers=verifiers, now=now)
    both = [stranger, world.trusted]
    assert read_passport(node.passport, key_digest=key(node), verifiers=both, now=now)


def test_a_passport_about_another_key_is_refused_however_often_it_was_seen(
    world: World, node: Node
) -> None:
    reader = PassportReader([world.trusted])
    now = datetime.now(UTC)
    for _ in range(2):
        with pytest.raises(BindingError, match="another key"):
            reader.read(node.passport, key_digest=bytes(32), now=now)
        assert reader.read(node.passport, key_digest=key(node), now=now)
    assert len(reader) == 1


def test_a_kept_passport_ends_when_it_ends(world: World, node: Node) -> None:
    reader = PassportReader([world.trusted])
    now = datetime.now(UTC)
    passport = reader.read(node.passport, key_digest=key(node), now=now)
    assert reader.read(node.passport, key_digest=key(node), now=now) is passport
    for moment in (passport.result.expires + timedelta(minutes=1), now - timedelta(hours=1)):
        with pytest.raises(FreshnessError):
            reader.read(node.passport, key_digest=key(node), now=moment)


def test_a_changed_token_is_another_token(world: World, node: Node) -> None:
    reader = PassportReader([world.trusted])
    now = datetime.now(UTC)
    reader.read(node.passport, key_digest=key(node), now=now)
    head, body, signature = node.passport.split(".")
    changed = ".".join([head, body, ("A" if signature[0] != "A" else "B") + signature[1:]])
    with pytest.raises((SignatureError, DecodeError)):
        reader.read(changed, key_digest=key(node), now=now)
    with pytest.raises(DecodeError):
        reader.read(b"not a token", key_digest=key(node), now=now)
    assert len(reader) == 1


def test_what_is_kept_is_bounded(world: World) -> None:
    reader = PassportReader([world.trusted], size=2)
    now = datetime.now(UTC)
    for name in ("a", "b", "c"):
        joined = world.join(name)
        reader.read(joined.passport, key_digest=key(joined), now=now)
    assert len(reader) == 2
