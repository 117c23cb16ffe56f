# SPDX-License-Identifier: Apache-2.0
"""Authorities follow one another, and at every moment whoever has the bundle verifies every SVID."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from troth.control_plane.server.authorities import Authorities, Rollover
from troth.errors import ChainError, ConfigurationError, ConflictError, SignatureError
from troth.identity.jwt_svid import verify_jwt_svid
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle, TrustBundleSet
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DOMAIN = TrustDomain("example.org")
SERVER = SpiffeId.decode("spiffe://example.org/troth/server")
WEB = SpiffeId.decode("spiffe://example.org/web")
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
KEEP = HOUR
KEY = ec.generate_private_key(ec.SECP256R1()).public_key()


def load(directory: Path, now: datetime = NOW, after: timedelta | None = None) -> Authorities:
    rollover = Rollover(announce=10 * MINUTE, keep=KEEP, after=after)
    return Authorities(directory, DOMAIN, now=now, random=os.urandom, x509=rollover, jwt=rollover)


def issue(authorities: Authorities, now: datetime) -> X509Svid:
    return authorities.active(now).issue_infrastructure_svid(
        KEY, SERVER, now=now, ttl=KEEP, random=os.urandom(16)
    )


def token(authorities: Authorities, now: datetime) -> str:
    return authorities.active_jwt(now).issue(WEB, ["reports"], now=now, ttl=KEEP).token


def verify(svid: X509Svid, jwt: str, bundle: TrustBundle, now: datetime) -> None:
    bundles = TrustBundleSet([bundle])
    verify_x509_svid(svid, bundles, now=now)
    verify_jwt_svid(jwt, bundles, audience="reports", now=now)


def test_the_stages_of_an_authority(tmp_path: Path) -> None:
    authorities = load(tmp_path)
    assert [each.stage for each in authorities.status(NOW)] == ["active", "active"]
    prepared = authorities.x509.rotate(NOW)
    stages = {each.id: each.stage for each in authorities.status(NOW) if each.kind == "x509"}
    assert stages[prepared] == "prepared"
    assert sorted(stages.values()) == ["active", "prepared"]
    later = NOW + 10 * MINUTE
    stages = {each.id: each.stage for each in authorities.status(later) if each.kind == "x509"}
    assert stages[prepared] == "active"
    assert sorted(stages.values()) == ["active", "old"]
    gone = later + KEEP
    authorities.look(gone)
    assert [each.id for each in authorities.status(gone) if each.kind == "x509"] == [prepared]


def test_a_prepared_authority_is_in_the_bundle_and_does_not_issue(tmp_path: Path) -> None:
    authorities = load(tmp_path)
    first = authorities.active(NOW).certificate
    authorities.x509.rotate(NOW)
    authorities.jwt.rotate(NOW)
    bundle = authorities.bundle(NOW)
    assert len(bundle.x509_authorities) == len(bundle.jwt_authorities) == 2
    assert bundle.x509_authorities[0] == authorities.active(NOW).certificate == first


def test_no_svid_is_ever_unverifiable_over_three_rollovers(tmp_path: Path) -> None:
    """A reader's bundle may be as old as the announcement, and SVIDs live for an hour."""
    authorities = load(tmp_path, after=90 * MINUTE)
    history: list[tuple[datetime, TrustBundle]] = []
    alive: list[tuple[datetime, X509Svid, str]] = []
    certificates = set()
    for minute in range(0, 8 * 60, 5):
        now = NOW + minute * MINUTE
        authorities.look(now)
        history.append((now, authorities.bundle(now)))
        alive.append((now, issue(authorities, now), token(authorities, now)))
        alive = [each for each in alive if now < each[0] + KEEP]
        certificates.add(authorities.active(now).certificate)
        readers = [bundle for at, bundle in history if at >= now - 10 * MINUTE]
        for _, svid, jwt in alive:
            for bundle in readers:
                verify(svid, jwt, bundle, now)
    assert len(certificates) >= 4


def test_a_reader_whose_bundle_is_older_than_the_announcement_is_cut_off(tmp_path: Path) -> None:
    authorities = load(tmp_path)
    old = authorities.bundle(NOW)
    authorities.x509.rotate(NOW)
    authorities.jwt.rotate(NOW)
    later = NOW + 10 * MINUTE
    with pytest.raises(ChainError):
        verify_x509_svid(issue(authorities, later), TrustBundleSet([old]), now=later)
    with pytest.raises(SignatureError):
        verify_jwt_svid(
            token(authorities, later), TrustBundleSet([old]), audience="reports", now=later
        )


def test_another_process_on_the_directory_sees_a_rollover_at_its_next_look(
    tmp_path: Path,
) -> None:
    one, two = load(tmp_path), load(tmp_path)
    made = one.x509.rotate(NOW)
    assert made not in [each.id for each in two.status(NOW)]
    two.look(NOW)
    assert two.bundle(NOW) == one.bundle(NOW)
    later = NOW + 10 * MINUTE
    assert two.active(later).certificate == one.active(later).certificate


def test_a_rollover_outlives_a_restart(tmp_path: Path) -> None:
    authorities = load(tmp_path)
    authorities.x509.rotate(NOW)
    authorities.jwt.rotate(NOW)
    assert load(tmp_path).bundle(NOW) == authorities.bundle(NOW)


def test_an_authority_from_before_there_was_a_schedule_stays(tmp_path: Path) -> None:
    first = load(tmp_path).active(NOW).certificate
    (tmp_path / "authority-keys.schedule").unlink()
    again = load(tmp_path)
    assert again.active(NOW).certificate == first


def test_two_at_once_cannot_be_prepared(tmp_path: Path) -> None:
    authorities = load(tmp_path)
    authorities.x509.rotate(NOW)
    with pytest.raises(ConflictError, match="announced already"):
        authorities.x509.rotate(NOW)


def test_a_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    load(tmp_path)
    (tmp_path / "other").mkdir()
    load(tmp_path / "other")
    foreign = (tmp_path / "other" / "authority.pem").read_bytes()
    (tmp_path / "authority.pem").write_bytes(foreign)
    with pytest.raises(ConfigurationError, match=r"authority\.pem"):
        load(tmp_path)
