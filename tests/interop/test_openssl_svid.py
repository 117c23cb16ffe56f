# SPDX-License-Identifier: Apache-2.0
"""The OpenSSL command judges what Troth issues: an X.509 stack that shares no code with ours."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from support.ears import plain_ear
from support.x509 import p256
from troth.errors import SignatureError
from troth.formats.ear import Dialect, minimise, sign_ear
from troth.formats.keys import VerificationKey
from troth.formats.signer import LocalSigner
from troth.identity.certificate_request import decode_csr
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.x509_authority import X509Authority
from troth.identity.x509_svid import X509Svid

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="the openssl command is not installed")

DOMAIN = TrustDomain("example.org")
NOW = datetime.now(UTC).replace(microsecond=0)  # the command reads its own clock


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(OPENSSL), *arguments], capture_output=True, text=True, check=False, timeout=30
    )


def authority() -> X509Authority:
    return X509Authority.self_signed(
        DOMAIN, p256(), now=NOW, lifetime=timedelta(days=1), random=bytes(range(16))
    )


def member_of(issuer: X509Authority) -> X509Svid:
    key, verifier = p256(), LocalSigner(p256())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = decode_csr(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    end = NOW + timedelta(hours=1)
    ear = minimise(plain_ear(request.spki, issued_at=NOW, expires_at=end))
    return issuer.issue_member_svid(
        request,
        SpiffeId.decode("spiffe://example.org/web"),
        result=sign_ear(ear, verifier, Dialect.IETF_03, wire="jwt"),
        result_keys=[VerificationKey(verifier.public_key)],
        max_result_age=timedelta(hours=1),
        node_id="edge-1",
        now=NOW,
        ttl=timedelta(hours=1),
        random=bytes(range(16, 32)),
        dns_names=["web.example.org"],
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    issuer = authority()
    ca, leaf = tmp_path / "ca.pem", tmp_path / "leaf.pem"
    ca.write_bytes(issuer.bundle().encode_pem())
    leaf.write_bytes(member_of(issuer).encode_pem())
    return ca, leaf


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_verifies_an_issued_svid_strictly(files: tuple[Path, Path], purpose: str) -> None:
    ca, leaf = files
    verdict = openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(ca), str(leaf))
    assert verdict.returncode == 0, verdict.stderr
    assert "OK" in verdict.stdout


def test_openssl_refuses_it_under_another_authority(files: tuple[Path, Path]) -> None:
    _, leaf = files
    other = leaf.with_name("other.pem")
    other.write_bytes(authority().bundle().encode_pem())
    verdict = openssl("verify", "-x509_strict", "-CAfile", str(other), str(leaf))
    assert verdict.returncode != 0


def test_openssl_reads_what_the_certificate_should_say(files: tuple[Path, Path]) -> None:
    ca, leaf = files
    text = openssl("x509", "-in", str(leaf), "-noout", "-text").stdout
    for line in (
        "Subject: O = SPIFFE, OU = node:edge-1",
        "URI:spiffe://example.org/web, DNS:web.example.org",
        "CA:FALSE",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "1.3.6.1.5.5.7.1.35:",
    ):
        assert line in text
    assert "1.3.6.1.5.5.7.1.35: critical" not in text
    assert "Certificate Sign" not in text
    authority_text = openssl("x509", "-in", str(ca), "-noout", "-text").stdout
    for line in ("CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "URI:spiffe://example.org"):
        assert line in authority_text


@pytest.mark.parametrize("digest", ["-sha1", "-sha224"])
def test_a_request_that_openssl_signed_with_a_weak_hash_is_refused(
    tmp_path: Path, digest: str
) -> None:
    key, request = tmp_path / "key.pem", tmp_path / "request.pem"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))

    def sign_with(name: str) -> bytes:
        made = openssl(
            "req", "-new", name, "-key", str(key), "-subj", "/CN=any", "-out", str(request)
        )
        assert made.returncode == 0, made.stderr
        return request.read_bytes()

    assert decode_csr(sign_with("-sha256"))
    with pytest.raises(SignatureError):
        decode_csr(sign_with(digest))


def test_openssl_finds_the_same_key_in_request_and_certificate(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    made = openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
    assert made.returncode == 0, made.stderr
    request = tmp_path / "request.pem"
    made = openssl("req", "-new", "-key", str(key), "-subj", "/CN=any", "-out", str(request))
    assert made.returncode == 0, made.stderr
    found = decode_csr(request.read_bytes())
    svid = authority().issue_infrastructure_svid(
        found.public_key,
        SpiffeId.decode("spiffe://example.org/troth/server"),
        now=NOW,
        ttl=timedelta(hours=1),
        random=bytes(16),
    )
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(svid.encode_pem())
    wanted = openssl("pkey", "-in", str(key), "-pubout").stdout
    assert openssl("x509", "-in", str(leaf), "-noout", "-pubkey").stdout == wanted != ""
