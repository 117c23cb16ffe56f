# SPDX-License-Identifier: Apache-2.0
"""Published TPM vectors, each with what its provenance says a Verifier should conclude."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from support.vectors import vectors
from troth.endorsement.store import EndorsementStore
from troth.errors import BindingError, DecodeError, FreshnessError, SignatureError
from troth.evidence.context import VerificationContext
from troth.evidence.evidence import Unchecked
from troth.evidence.tpm2 import SCHEME, Tpm2Scheme, encode
from troth.evidence.tpm2.certificates import verify_attestation_certificate
from troth.evidence.tpm2.measurements import VerifiedQuote
from troth.formats.ar4si import TrustTier
from troth.formats.corim.corim import Corim
from troth.formats.keys import VerificationKey, load_keys
from troth.formats.tpm.attest import Quoted, decode_attest
from troth.formats.tpm.pcr_file import decode_pcr_file
from troth.formats.tpm.public import decode_public
from troth.verifier.result import VerifierIdentity
from troth.verifier.verifier import Verifier

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
CONTEXT = VerificationContext(now=NOW)
UNCHECKED = Unchecked("recorded")
GOOGLE = ("gce-cos-85-no-nonce.pb", "gce-cos-85-nonce9009.pb")


def octets(folder: str, name: str) -> bytes:
    return (vectors(folder) / name).read_bytes()


def certificate(name: str) -> x509.Certificate:
    data = octets("tpm", f"go-tpm-tools/{name}")
    if data.startswith(b"-----"):
        return x509.load_pem_x509_certificate(data)
    return x509.load_der_x509_certificate(data)


class Anchors:
    """These keys for whoever asks, and these roots."""

    def __init__(self, *keys: VerificationKey, roots: Sequence[x509.Certificate] = ()) -> None:
        self._keys, self._roots = keys, roots

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        del scheme, implementation_id, instance_id
        return self._keys

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        del scheme
        return self._roots


def verify(
    data: bytes, anchors: Anchors, freshness: bytes | Unchecked = UNCHECKED, **options: Any
) -> VerifiedQuote:
    scheme = options.pop("scheme", SCHEME)
    return scheme.verify(
        SCHEME.decode(data), trust_anchors=anchors, freshness=freshness, context=CONTEXT, **options
    )


def fields(data: bytes) -> list[tuple[int, Any]]:
    """Return the fields of a protobuf message, as far as these vectors need."""
    found: list[tuple[int, Any]] = []
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            octet = data[at]
            at += 1
            value |= (octet & 0x7F) << shift
            shift += 7
            if octet < 0x80:
                return value

    while at < len(data):
        tag = number()
        value: Any = number()
        if tag & 7 == 2:
            size, value = value, data[at : at + value]
            at += size
        found.append((tag >> 3, value))
    return found


@cache
def google(name: str, bank: int, *, certified: bool = False) -> bytes:
    """Return the quote of one bank of a Google vector in Troth's form, with log and key."""
    message = fields(octets("tpm", f"go-tpm-tools/{name}"))
    (key,) = (value for number, value in message if number == 1)
    (log,) = (value for number, value in message if number == 3)
    (leaf,) = (value for number, value in message if number == 6)
    for quote in (dict(fields(value)) for number, value in message if number == 2):
        pcrs = fields(quote[3])
        if (1, bank) in pcrs:
            entries = [dict(fields(value)) for number, value in pcrs if number == 2]
            values = {entry.get(1, 0): entry[2] for entry in entries}
            issuer = certificate("tpm_ek_intermediate_2.crt").public_bytes(Encoding.DER)
            return encode(
                quote=quote[1],
                signature=quote[2],
                pcr_values=b"".join(values[pcr] for pcr in range(24)),
                attestation_key=key,
                event_log=log,
                certificates=[leaf, issuer] if certified else [],
            )
    raise AssertionError(f"no quote of bank {bank}")


def google_key(name: str) -> VerificationKey:
    message = fields(octets("tpm", f"go-tpm-tools/{name}"))
    return VerificationKey(decode_public(message[0][1]).public_key())


@pytest.mark.parametrize("name", GOOGLE)
@pytest.mark.parametrize(("bank", "label"), [(4, "sha-1"), (11, "sha-256"), (12, "sha-384")])
def test_a_quote_of_a_shielded_vm_verifies_and_its_log_explains_it(
    name: str, bank: int, label: str
) -> None:
    verified = verify(google(name, bank), Anchors(google_key(name)))
    assert verified.measured.secure_boot is True
    assert sorted(verified.measured.events) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert verified.measured.bank is not None
    assert verified.measured.bank.name == label


def test_the_nonce_of_the_vector_is_compared_whole() -> None:
    # It has two octets, which no challenge of ours has; the neighbour has none.
    assert SCHEME.decode(google(GOOGLE[1], 11)).quote.extra_data == bytes.fromhex("9009")
    assert SCHEME.decode(google(GOOGLE[0], 11)).quote.extra_data == b""
    with pytest.raises(FreshnessError, match="the shorter begins the longer"):
        verify(
            google(GOOGLE[1], 11), Anchors(google_key(GOOGLE[1])), bytes.fromhex("9009") + bytes(30)
        )


def test_googles_certificates_lead_to_googles_root() -> None:
    data = google(GOOGLE[0], 11, certified=True)
    root = certificate("tpm_ek_root_1.cer")
    verified = verify(data, Anchors(roots=[root]))
    assert verified.implementation_id == root.fingerprint(hashes.SHA256())
    assert not verified.signer_is_device


def test_googles_current_certificates_lead_to_googles_current_root() -> None:
    chain = [
        certificate("pca_tpm_ecc_sign_cert.pem"),
        certificate("gcp_ek_ak_ca_intermediate_v3.crt"),
    ]
    root = certificate("gcp_ek_ak_ca_root.crt")
    assert verify_attestation_certificate(chain, [root], context=CONTEXT) == root


def test_a_changed_event_of_the_vector_is_noticed() -> None:
    whole = google(GOOGLE[0], 11)
    evidence = SCHEME.decode(whole)
    assert evidence.event_log is not None
    log = bytearray(evidence.event_log.raw)
    # The digest of the last event.
    at = bytes(log).rindex(evidence.event_log.events[-1].digests[11])
    log[at] ^= 1
    forged = encode(
        quote=evidence.quote.raw,
        signature=whole[whole.index(evidence.quote.raw) + len(evidence.quote.raw) + 4 :][:262],
        pcr_values=evidence.pcr_values or b"",
        event_log=bytes(log),
    )
    with pytest.raises(BindingError, match="quoted PCR 5"):
        verify(forged, Anchors(google_key(GOOGLE[0])))


def keylime(**parts: bytes) -> bytes:
    quote = octets("keylime", "quote.out")
    attested = decode_attest(quote).attested
    assert isinstance(attested, Quoted)
    values = attested.selection.join(decode_pcr_file(octets("keylime", "quotepcr.out")))
    given = {
        "quote": quote,
        "signature": octets("keylime", "quotesig.out"),
        "pcr_values": values or b"",
        "attestation_key": decode_public(octets("keylime", "ak.pub")).raw,
    }
    return encode(**{**given, **parts})


def keylime_key() -> VerificationKey:
    return load_keys(octets("keylime", "akpub.pem"), source="akpub.pem")[0]


def test_keylimes_quote_verifies_and_is_named_as_keylime_names_it() -> None:
    verified = verify(keylime(), Anchors(keylime_key()))
    assert verified.instance_id == octets("keylime", "ak.name")
    assert sorted(verified.measured.values["sha-256"]) == [15, 16, 22]


def test_keylimes_quote_is_refused_where_more_was_asked_for() -> None:
    with pytest.raises(BindingError, match="PCR 0 was asked for"):
        verify(keylime(), Anchors(keylime_key()), scheme=Tpm2Scheme(required_pcrs=(0, 15)))


def test_keylimes_quote_is_refused_under_the_endorsement_key() -> None:
    endorsement = load_keys(octets("keylime", "ekpub.pem"), source="ekpub.pem")[0]
    with pytest.raises(SignatureError):
        verify(keylime(), Anchors(endorsement))
    assert decode_public(octets("keylime", "ek.pub")).public_key() == endorsement.material


def store(*corims: tuple[str, str]) -> EndorsementStore:
    held = EndorsementStore()
    for folder, name in corims:
        held.provision(Corim.decode(octets(folder, name)), now=NOW, source=name)
    return held


def appraise(data: bytes, endorsements: EndorsementStore, **options: Any) -> Any:
    return Verifier(
        identity=VerifierIdentity(developer="test", build="1"),
        endorsements=endorsements,
        **options,
    ).appraise(data, now=NOW, challenge=UNCHECKED)


class TestEnactTrust:
    CORIM = ("tpm", "veraison-services/corim-enacttrust-valid.cbor")

    def test_the_token_verifies_under_the_published_key(self) -> None:
        (key,) = load_keys(octets("tpm", "veraison-services/basic.pem.pub"), source="basic")
        data = octets("tpm", "veraison-services/basic.token")
        verified = verify(data, Anchors(key), allow_test_keys=True)
        assert verified.instance_id.hex() == "7df7714eaa044638bcbf434b1dd720f1"
        assert verified.evidence.quote.firmware_version == 7
        assert verified.claims_sets[0].claims["pcr-selection"] == {"sha-256": [1, 2, 3, 4]}
        with pytest.raises(SignatureError, match="published test key"):
            verify(data, Anchors(key))

    def test_the_token_carries_no_challenge(self) -> None:
        (key,) = load_keys(octets("tpm", "veraison-services/basic.pem.pub"), source="basic")
        with pytest.raises(FreshnessError):
            verify(
                octets("tpm", "veraison-services/basic.token"),
                Anchors(key),
                bytes(32),
                allow_test_keys=True,
            )

    def test_the_published_endorsement_affirms_it(self) -> None:
        result = appraise(
            octets("tpm", "veraison-services/basic.token"), store(self.CORIM), allow_test_keys=True
        )
        assert result.status is TrustTier.AFFIRMING
        assert result.submods["tpm2"].vector.executables == 3

    def test_a_token_of_another_node_finds_no_key(self) -> None:
        data = octets("tpm", "veraison-services/basic.token")
        with pytest.raises(SignatureError, match="no trust anchor"):
            appraise(b"\0" * 16 + data[16:], store(self.CORIM), allow_test_keys=True)

    def test_the_readable_form_of_the_token_is_the_same_digest(self) -> None:
        import base64  # noqa: PLC0415 - this test alone
        import json  # noqa: PLC0415 - as above

        source = json.loads(octets("tpm", "veraison-services/basic.json"))
        evidence = SCHEME.decode(octets("tpm", "veraison-services/basic.token"))
        assert base64.b64decode(source["digest"]) == evidence.quoted.digest
        assert source["pcrs"] == list(evidence.quoted.selection.registers("sha-256"))


class TestParsec:
    CORIM = ("corim", "corim-parsec-tpm-valid.cbor")

    def test_the_published_endorsement_affirms_the_evidence(self) -> None:
        data = octets("tpm", "veraison-services/evidence.cbor")
        result = appraise(data, store(self.CORIM), allow_test_keys=True)
        assert result.status is TrustTier.AFFIRMING
        assert result.submods["tpm2"].claims["attested-key"]["attributes"] == [
            "fixedtpm",
            "fixedparent",
            "sensitivedataorigin",
            "userwithauth",
            "sign",
        ]

    def test_its_key_is_a_published_one(self) -> None:
        data = octets("tpm", "veraison-services/evidence.cbor")
        with pytest.raises(SignatureError, match="published test key"):
            appraise(data, store(self.CORIM))

    def test_the_other_evidence_decodes_and_finds_no_key(self) -> None:
        evidence = SCHEME.decode(octets("tpm", "parsec/evidence.cbor"))
        assert evidence.quote.extra_data == b"0000"
        assert evidence.key_attestation is not None
        assert evidence.key_attestation.attest.extra_data == b"0000"
        with pytest.raises(SignatureError, match="no trust anchor"):
            appraise(octets("tpm", "parsec/evidence.cbor"), store(self.CORIM))

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("evidence_bad_kat.cbor", "pat.attestInfo is missing"),
            ("evidence_invalid.cbor", "occurs twice"),
        ],
    )
    def test_broken_evidence_is_refused(self, name: str, reason: str) -> None:
        with pytest.raises(DecodeError, match=reason):
            SCHEME.decode(octets("tpm", f"parsec/{name}"))

    def test_a_swapped_key_is_refused(self) -> None:
        data = octets("tpm", "veraison-services/evidence.cbor")
        evidence = SCHEME.decode(data)
        assert evidence.key_attestation is not None
        area = evidence.key_attestation.key.raw
        swapped = area[:-1] + bytes([area[-1] ^ 1])
        with pytest.raises(BindingError, match="the key attestation certifies"):
            appraise(data.replace(area, swapped), store(self.CORIM), allow_test_keys=True)
