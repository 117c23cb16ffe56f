# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from troth.control_plane.server.keys import ServerKeys, load_or_create_keys
from troth.errors import ConfigurationError, UnavailableError
from troth.identity.spiffe_id import TrustDomain

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEY_FILES = ("authority.key.pem", "jwt.key.pem", "result.key.pem", "tls.key.pem")


def load(directory: Path, domain: str = "example.org") -> ServerKeys:
    return load_or_create_keys(directory, TrustDomain(domain), now=NOW, random=os.urandom)


def test_keys_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    first, second = load(directory), load(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for name in KEY_FILES:
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert first.authorities.bundle(NOW) == second.authorities.bundle(NOW)
    assert first.authorities.active(NOW).certificate == second.authorities.active(NOW).certificate
    assert first.results.jwk_set(NOW) == second.results.jwk_set(NOW)
    assert first.results.signer(NOW).key_id == second.results.signer(NOW).key_id != ""
    assert len({(directory / name).read_bytes() for name in KEY_FILES}) == 4


@pytest.mark.parametrize("name", KEY_FILES)
def test_a_damaged_key_is_an_error_and_is_never_replaced(tmp_path: Path, name: str) -> None:
    load(tmp_path)
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match=name):
        load(tmp_path)
    assert (tmp_path / name).read_bytes() == b"damaged"


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load(tmp_path)
    (tmp_path / "authority.key.pem").chmod(0o644)
    with pytest.raises(ConfigurationError, match="0600"):
        load(tmp_path)


def test_an_authority_of_another_trust_domain_or_key_is_refused(tmp_path: Path) -> None:
    load(tmp_path)
    with pytest.raises(ConfigurationError, match=r"authority\.pem"):
        load(tmp_path, "other.example")


def test_an_authority_without_its_key_is_not_replaced(tmp_path: Path) -> None:
    load(tmp_path)
    certificate = (tmp_path / "authority.pem").read_bytes()
    (tmp_path / "authority.key.pem").unlink()
    with pytest.raises(UnavailableError, match=r"authority\.key\.pem"):
        load(tmp_path)
    assert (tmp_path / "authority.pem").read_bytes() == certificate


def test_a_directory_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="data directory"):
        load(tmp_path / "file" / "data")
