# SPDX-License-Identifier: Apache-2.0
"""`verify()` on fresh documents of a simulated enclave: each acceptance beside a refusal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from support.vendor_evidence import CHALLENGE, NOW, UNCHECKED, Roots, verify_with
from support.x509 import usage
from troth.errors import ApiMisuseError, ChainError, FreshnessError, SignatureError, TrothError
from troth.evidence.evidence import NonceMatched, VerifiedEvidence
from troth.evidence.nitro import SCHEME
from troth.testing.nitro import NitroAuthority, SimulatedEnclave

AUTHORITY = NitroAuthority()
ENCLAVE = SimulatedEnclave(authority=AUTHORITY)
SECOND = timedelta(seconds=1)


def der(*certificates: x509.Certificate) -> list[bytes]:
    return [each.public_bytes(Encoding.DER) for each in certificates]


def verify(enclave: SimulatedEnclave = ENCLAVE, **given: object) -> VerifiedEvidence:
    return verify_with(enclave.attest(CHALLENGE), "nitro", enclave.authority.root, **given)


def certified(certificate: x509.Certificate) -> SimulatedEnclave:
    return ENCLAVE.saying(certificate=der(certificate)[0])


def test_a_document_for_this_challenge_is_verified() -> None:
    verified = verify()
    assert verified.freshness == NonceMatched(CHALLENGE)
    assert verified.implementation_id == b"\xa0" * 48
    assert verified.instance_id == verified.boot_session == ENCLAVE.module_id.encode()
    assert verified.signer == AUTHORITY.root.fingerprint(hashes.SHA256()).hex()
    assert verified.insecure == ("platform simulator",)
    (claims_set,) = verified.claims_sets
    assert (claims_set.label, claims_set.component) == ("nitro", "enclave")
    assert claims_set.claims["pcrs"]["4"] == "a4" * 48


def test_the_simulator_is_refused_unless_allowed() -> None:
    with pytest.raises(SignatureError, match="platform simulator"):
        verify(allow_simulator=False)


@pytest.mark.parametrize(
    "nonce", [None, b"", CHALLENGE[:-1], CHALLENGE + b"\0", bytes(64), CHALLENGE * 4]
)
def test_another_nonce_is_refused(nonce: bytes | None) -> None:
    with pytest.raises(FreshnessError, match="nonce is not the challenge"):
        verify(ENCLAVE.saying(nonce=nonce))


def test_the_challenge_in_another_field_does_not_count() -> None:
    with pytest.raises(FreshnessError):
        verify(ENCLAVE.saying(nonce=None, user_data=CHALLENGE))


def test_the_callers_octets_are_claims() -> None:
    claims = verify(ENCLAVE.saying(public_key=b"key", user_data=b"data")).claims_sets[0].claims
    assert (claims["public_key"], claims["user_data"]) == (b"key".hex(), b"data".hex())
    assert not {"public_key", "user_data"} & verify().claims_sets[0].claims.keys()


def test_freshness_is_left_unchecked_only_explicitly() -> None:
    assert verify(ENCLAVE.saying(nonce=None), challenge=UNCHECKED).freshness == UNCHECKED


@pytest.mark.parametrize("at", [30, 200, 900, 1500, -60, -1])
def test_one_bit_changed_anywhere_is_refused(at: int) -> None:
    data = bytearray(ENCLAVE.attest(CHALLENGE))
    data[at] ^= 1
    with pytest.raises(TrothError):
        verify_with(bytes(data), "nitro", AUTHORITY.root)


def test_another_key_than_the_certified_one_is_refused() -> None:
    with pytest.raises(SignatureError, match="does not verify"):
        verify(certified(AUTHORITY.certify(ec.generate_private_key(ec.SECP384R1()).public_key())))


def test_a_root_that_nobody_provisioned_is_refused() -> None:
    for roots, vendors in (((), ()), ((NitroAuthority().root,), ()), ((), ("aws", "amd"))):
        with pytest.raises(ChainError, match="is no trust anchor"):
            verify_with(ENCLAVE.attest(CHALLENGE), "nitro", *roots, vendors=vendors)


def test_an_intermediate_alone_is_no_root() -> None:
    bundle = der(*AUTHORITY.bundle[1:])
    with pytest.raises(ChainError, match=r"cabundle\[0\] is not issued"):
        verify_with(ENCLAVE.saying(cabundle=bundle).attest(CHALLENGE), "nitro", AUTHORITY.bundle[1])


@pytest.mark.parametrize(
    "bundle",
    [
        AUTHORITY.bundle[:1],
        (*AUTHORITY.bundle[:2], *AUTHORITY.bundle[3:]),
        tuple(reversed(AUTHORITY.bundle)),
        (*AUTHORITY.bundle, AUTHORITY.bundle[-1]),
        (*AUTHORITY.bundle[:3], NitroAuthority().bundle[3]),
    ],
    ids=["root only", "one missing", "leaf first", "last twice", "a stranger's"],
)
def test_a_bundle_that_is_no_path_is_refused(bundle: tuple[x509.Certificate, ...]) -> None:
    with pytest.raises(ChainError):
        verify(ENCLAVE.saying(cabundle=der(*bundle)))


def test_a_damaged_certificate_is_refused() -> None:
    for claims in (
        {"cabundle": [*der(*AUTHORITY.bundle[:3]), b"\x30\x00"]},
        {"certificate": b"\x30\x00"},
    ):
        with pytest.raises(ChainError, match="not a certificate"):
            verify(ENCLAVE.saying(**claims))


def test_a_certificate_signed_by_somebody_else_is_refused() -> None:
    theirs = NitroAuthority().certify(ENCLAVE.key.public_key())
    with pytest.raises(ChainError, match="certificate is not issued by the certificate before"):
        verify(certified(theirs))


def test_intermediates_that_were_right_once_are_right_for_their_own_issuer_only() -> None:
    """What is remembered is a pair: the same certificate under another issuer is looked at anew."""
    verify()
    other = NitroAuthority()
    bundle = der(*other.bundle[:3], AUTHORITY.bundle[3])
    with pytest.raises(ChainError, match=r"cabundle\[3\] is not issued"):
        verify_with(
            ENCLAVE.saying(cabundle=bundle).attest(CHALLENGE), "nitro", other.root, AUTHORITY.root
        )


@pytest.mark.parametrize("lengths", [(None, 1, 1, 0), (None, 2, 0, 0), (1, None, None, None)])
def test_more_certificates_than_a_path_length_allows_are_refused(
    lengths: tuple[int | None, ...],
) -> None:
    with pytest.raises(ChainError, match="allows"):
        verify(SimulatedEnclave(authority=NitroAuthority(path_lengths=lengths)))


def test_path_lengths_that_just_suffice_are_taken() -> None:
    verify(SimulatedEnclave(authority=NitroAuthority(path_lengths=(3, 2, 1, 0))))


@pytest.mark.parametrize("names", [("key_cert_sign",), ("key_agreement",)])
def test_a_certificate_that_is_not_for_signing_is_refused(names: tuple[str, ...]) -> None:
    other = AUTHORITY.certify(ENCLAVE.key.public_key(), usage=usage(*names))
    with pytest.raises(ChainError, match="is for other things"):
        verify(certified(other))


def test_a_certificate_that_an_enclave_signed_is_refused() -> None:
    """An enclave's key must not make authorities, nor other enclaves."""
    bundle = [*der(*AUTHORITY.bundle), *der(ENCLAVE.certificate)]
    name = ENCLAVE.certificate.subject
    forged = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(ENCLAVE.key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(hours=1))
        .add_extension(usage("digital_signature"), critical=False)
        .sign(ENCLAVE.key, hashes.SHA384())
    )
    with pytest.raises(ChainError, match=r"cabundle\[\d\] (allows|may not sign)"):
        verify(ENCLAVE.saying(cabundle=bundle, certificate=der(forged)[0]))


def test_an_unknown_critical_extension_is_refused() -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    key = ENCLAVE.key.public_key()
    verify(certified(AUTHORITY.certify(key, more=[(extension, False)])))
    with pytest.raises(ChainError, match=r"critical extension 1\.2\.3\.4 is not known"):
        verify(certified(AUTHORITY.certify(key, more=[(extension, True)])))


@pytest.mark.parametrize(
    "authority",
    [NitroAuthority(curve=ec.SECP256R1()), NitroAuthority(digest=hashes.SHA256())],
    ids=["P-256", "SHA-256"],
)
def test_another_curve_or_hash_than_awss_is_refused(authority: NitroAuthority) -> None:
    with pytest.raises(ChainError, match="is not ECDSA on P-384 with SHA-384"):
        verify(SimulatedEnclave(authority=authority))


def test_a_document_is_good_for_as_long_as_its_certificate() -> None:
    enclave = SimulatedEnclave(authority=AUTHORITY)
    begin, end = enclave.certificate.not_valid_before_utc, enclave.certificate.not_valid_after_utc
    for now in (begin - SECOND, end + SECOND):
        with pytest.raises(ChainError, match="are valid from"):
            verify(enclave, now=now)
    for now in (begin, end):
        verify(enclave, now=now)
    # What is remembered of the path does not outlive it.
    with pytest.raises(ChainError, match="are valid from"):
        verify(enclave, now=end + SECOND)


@pytest.mark.parametrize("shift", [timedelta(hours=-2), timedelta(hours=3)])
def test_a_document_that_was_made_when_its_certificate_was_not_valid_is_refused(
    shift: timedelta,
) -> None:
    timestamp = int((NOW + shift).timestamp() * 1000)
    with pytest.raises(ChainError, match="says that it was made at"):
        verify(ENCLAVE.saying(timestamp=timestamp))


def test_without_a_clock_reading_nothing_is_verified() -> None:
    with pytest.raises(ApiMisuseError, match="clock reading"):
        SCHEME.verify(
            SCHEME.decode(ENCLAVE.attest(CHALLENGE)),
            trust_anchors=Roots(AUTHORITY.root),
            freshness=CHALLENGE,
        )


def test_debug_mode_is_told_by_a_pcr_0_of_zeros() -> None:
    debug = replace(ENCLAVE, pcrs={**ENCLAVE.pcrs, 0: bytes(48)})
    assert verify(debug).claims_sets[0].claims["debug_mode"] is True
    assert verify().claims_sets[0].claims["debug_mode"] is False
    without = ENCLAVE.saying(pcrs={1: b"x" * 48})
    assert verify(without).claims_sets[0].claims["debug_mode"] is True
