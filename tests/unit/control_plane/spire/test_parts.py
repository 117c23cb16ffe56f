# SPDX-License-Identifier: Apache-2.0
"""What the plugins read and remember, without processes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from troth.control_plane.spire.agent_attestor import agent_public_keys
from troth.control_plane.spire.attested_keys import FRESH, AttestedKey, AttestedKeys
from troth.control_plane.spire.node_exchange import (
    MAX_PROOFS,
    KeyProof,
    decode_challenge,
    decode_hello,
    decode_proofs,
    encode_challenge,
    encode_hello,
    encode_proofs,
)
from troth.control_plane.spire.plugin_data import read_plugin_data
from troth.errors import (
    AuthorizationError,
    ConfigurationError,
    DecodeError,
    LimitExceededError,
    UnavailableError,
)
from troth.identity.spiffe_id import SpiffeId

NOW = datetime(2026, 11, 26, tzinfo=UTC)
AGENT = SpiffeId.decode("spiffe://spire.example/spire/agent/troth/psa/instance/01")
OTHER = SpiffeId.decode("spiffe://spire.example/spire/agent/troth/psa/instance/02")
KEY = AttestedKey(key=b"key", ear="e.a.r")


@pytest.mark.parametrize(
    "text",
    [
        'config = "/etc/x.toml"',
        '  config="/etc/x.toml"\n',
        '# a remark\nconfig = "/etc/x.toml"',
        '{ config = "/etc/x.toml" }',
        '{"config": "/etc/x.toml"}',
    ],
)
def test_one_files_name_is_read_from_plugin_data(text: str) -> None:
    assert read_plugin_data(text) == Path("/etc/x.toml")


@pytest.mark.parametrize(
    "text",
    [
        "",
        'config = "x.toml"',
        'config = "/x"\nmode = "y"',
        "config = /x",
        'other = "/x"',
        'config = "\\q"',
        'config = "/' + "x" * 5000 + '"',
    ],
)
def test_anything_else_in_plugin_data_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        read_plugin_data(text)


def test_a_proved_key_is_found_while_it_is_fresh_and_for_its_agent_alone(tmp_path: Path) -> None:
    keys = AttestedKeys(tmp_path)
    keys.record(AGENT, [KEY], now=NOW, unbound=False)
    assert keys.find(AGENT, b"key", now=NOW + FRESH) == KEY
    for agent, key, now in (
        (AGENT, b"kez", NOW),
        (OTHER, b"key", NOW),
        (AGENT, b"key", NOW + FRESH + timedelta(microseconds=1)),
        (AGENT, b"key", NOW - timedelta(microseconds=1)),
    ):
        with pytest.raises(AuthorizationError):
            keys.find(agent, key, now=now)
    keys.record(AGENT, [], now=NOW, unbound=False)
    with pytest.raises(AuthorizationError, match="does not cover"):
        keys.find(AGENT, b"key", now=NOW)
    keys.record(AGENT, [KEY], now=NOW, unbound=True)
    assert keys.find(AGENT, b"kez", now=NOW) is None


def test_a_damaged_record_lets_nobody_in(tmp_path: Path) -> None:
    keys = AttestedKeys(tmp_path)
    keys.record(AGENT, [KEY], now=NOW, unbound=True)
    (path,) = (tmp_path / "attested").iterdir()
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnavailableError):
        keys.find(AGENT, b"key", now=NOW)


_PROOFS = st.lists(
    st.builds(KeyProof, media_type=st.text(max_size=20), evidence=st.binary(), key=st.binary()),
    min_size=1,
    max_size=MAX_PROOFS,
)


@given(_PROOFS)
def test_an_answer_is_read_as_it_was_written(proofs: list[KeyProof]) -> None:
    assert list(decode_proofs(encode_proofs(proofs))) == proofs


def test_more_keys_than_an_agent_has_are_refused() -> None:
    proof = KeyProof(media_type="x", evidence=b"x")
    with pytest.raises(DecodeError):
        decode_proofs(encode_proofs([proof] * (MAX_PROOFS + 1)))
    with pytest.raises(DecodeError):
        decode_proofs(encode_proofs([]))
    with pytest.raises(LimitExceededError):
        decode_proofs(encode_proofs([KeyProof(media_type="x", evidence=bytes(200_000))]))


@given(st.binary(max_size=200))
def test_what_is_no_message_is_refused(data: bytes) -> None:
    for decode in (decode_challenge, decode_proofs):
        with pytest.raises(DecodeError):
            decode(data)


def test_hello_and_challenge_are_of_one_form() -> None:
    decode_hello(encode_hello())
    with pytest.raises(DecodeError, match="version 2"):
        decode_hello(b'{"version": 2}')
    assert decode_challenge(encode_challenge(bytes(32))) == bytes(32)
    with pytest.raises(DecodeError):
        decode_challenge(encode_challenge(bytes(31)))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"keys": 1}', '{"keys": {}}', '{"keys": {"agent-svid-A": "AAAA"}}'],
)
def test_a_key_file_without_an_agents_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    with pytest.raises(UnavailableError):
        agent_public_keys(path)
    with pytest.raises(UnavailableError):
        agent_public_keys(tmp_path / "absent")
    path.write_text(json.dumps({"keys": {"other": "AAAA"}}))
    with pytest.raises(UnavailableError, match="0 keys"):
        agent_public_keys(path)
