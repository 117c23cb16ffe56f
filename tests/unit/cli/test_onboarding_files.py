# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from troth.cli.onboarding_files import onboarding_of
from troth.control_plane.agent.config import OnboardingSection
from troth.errors import ConfigurationError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def write_pair(folder: Path, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


def test_nothing_is_shown_by_default(tmp_path: Path) -> None:
    shown = onboarding_of(OnboardingSection(), tmp_path)
    assert (shown.activate, shown.join_token) == (False, "")
    assert shown.claim(svid_key=b"k", nonce=b"n" * 32) is None


def test_token_and_certificate_come_from_files_beside_the_configuration(tmp_path: Path) -> None:
    write_pair(tmp_path, "idevid")
    (tmp_path / "token").write_text("abc\n")
    section = OnboardingSection(
        activate=True,
        join_token_file="token",
        claim_certificate="idevid.pem",
        claim_key="idevid.key",
    )
    shown = onboarding_of(section, tmp_path)
    assert (shown.activate, shown.join_token) == (True, "abc")
    claim = shown.claim(svid_key=b"k", nonce=b"n" * 32)
    assert claim is not None
    assert len(claim.certificates) == 1
    assert "abc" not in repr(shown)


def test_a_key_that_is_missing_or_anothers_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "idevid")
    write_pair(tmp_path, "other")
    for certificate, key, why in (
        ("idevid.pem", "", "both"),
        ("idevid.pem", "other.key", "key of the certificate"),
        ("idevid.pem", "none.key", "a readable file"),
        ("idevid.key", "idevid.key", "PEM certificates"),
    ):
        section = OnboardingSection(claim_certificate=certificate, claim_key=key)
        with pytest.raises(ConfigurationError, match=why):
            onboarding_of(section, tmp_path)
    with pytest.raises(ConfigurationError, match="a readable file"):
        onboarding_of(OnboardingSection(join_token_file="none"), tmp_path)
