# SPDX-License-Identifier: Apache-2.0
"""Credential activation: a key is believed only if the known TPM answers for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from support.software_tpm import (
    AK_ATTRIBUTES,
    EK_ATTRIBUTES,
    SoftwareTpm,
    name_of,
    p256,
    public_area,
)
from support.x509 import NOW, Plan, sign, signing, usage
from troth.errors import (
    ApiMisuseError,
    BindingError,
    ChainError,
    DecodeError,
    FreshnessError,
    SignatureError,
)
from troth.evidence.context import VerificationContext
from troth.evidence.tpm2.activation import (
    ACTIVATION_LIFETIME,
    ActivatedKey,
    ActivationChallenge,
    ActivationRequest,
    CredentialActivation,
)
from troth.formats import cbor
from troth.formats.keys import VerificationKey, thumbprint
from troth.formats.tpm.public import decode_public

CONTEXT = VerificationContext(now=NOW)
ROOT = signing(uris=())
EK_USE = (x509.ObjectIdentifier("2.23.133.8.1"),)


class Anchors:
    def __init__(
        self, *endorsement_keys: SoftwareTpm, roots: Sequence[x509.Certificate] = ()
    ) -> None:
        self._keys = {
            name_of(each.endorsement_public): VerificationKey(each.endorsement.public_key())
            for each in endorsement_keys
        }
        self._roots = roots

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        del scheme, implementation_id
        found = self._keys.get(instance_id)
        return [found] if found else []

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        del scheme
        return self._roots


def request(tpm: SoftwareTpm, *certificates: x509.Certificate, **areas: bytes) -> ActivationRequest:
    return ActivationRequest(
        endorsement_key=decode_public(areas.get("endorsement", tpm.endorsement_public)),
        attestation_key=decode_public(areas.get("attestation", tpm.public)),
        certificates=[each.public_bytes(Encoding.DER) for each in certificates],
    )


def begin(asked: ActivationRequest, anchors: Anchors, **options: Any) -> CredentialActivation:
    return CredentialActivation.begin(
        ActivationRequest.decode(asked.encode()),
        trust_anchors=anchors,
        context=CONTEXT,
        random=os.urandom,
        **options,
    )


def answer(tpm: SoftwareTpm, activation: CredentialActivation) -> bytes:
    credential = ActivationChallenge.decode(activation.challenge.encode()).credential
    return tpm.activate(credential.id_object, credential.encrypted_seed, tpm.name)


def certified(tpm: SoftwareTpm, **changes: Any) -> x509.Certificate:
    given = {
        "key": tpm.endorsement,
        "uris": (),
        "uses": EK_USE,
        "ca": False,
        "usage": usage("key_agreement"),
    }
    return sign(Plan(**{**given, **changes}), ROOT)


@pytest.mark.parametrize(
    "endorsement", [p256("ek"), rsa.generate_private_key(65537, 2048)], ids=["ecc", "rsa"]
)
def test_the_tpm_that_holds_both_keys_is_believed(endorsement: Any) -> None:
    tpm = SoftwareTpm(endorsement=endorsement)
    activation = begin(request(tpm), Anchors(tpm))
    proved = activation.complete(answer(tpm, activation), now=NOW)
    assert isinstance(proved, ActivatedKey)
    assert proved.attestation_key.name == tpm.name
    assert proved.vouched_by == thumbprint(endorsement.public_key())


def test_a_wrong_answer_is_refused_and_no_second_one_is_looked_at() -> None:
    tpm = SoftwareTpm()
    activation = begin(request(tpm), Anchors(tpm))
    right = answer(tpm, activation)
    with pytest.raises(BindingError, match="the answer is not the secret"):
        activation.complete(right[:-1] + bytes([right[-1] ^ 1]), now=NOW)
    with pytest.raises(ApiMisuseError, match="answered once"):
        activation.complete(right, now=NOW)


@pytest.mark.parametrize("wrong", [b"", bytes(32)])
def test_nothing_and_zeros_are_no_answer(wrong: bytes) -> None:
    tpm = SoftwareTpm()
    with pytest.raises(BindingError):
        begin(request(tpm), Anchors(tpm)).complete(wrong, now=NOW)


def test_a_late_answer_is_refused() -> None:
    tpm = SoftwareTpm()
    activation = begin(request(tpm), Anchors(tpm))
    right = answer(tpm, activation)
    with pytest.raises(FreshnessError, match="was to be answered until"):
        activation.complete(right, now=NOW + ACTIVATION_LIFETIME + timedelta(seconds=1))


def test_a_tpm_in_which_the_key_does_not_live_cannot_answer() -> None:
    tpm, key_of_another = SoftwareTpm(), SoftwareTpm(key=p256("other"))
    activation = begin(request(tpm, attestation=key_of_another.public), Anchors(tpm))
    with pytest.raises(ValueError, match="TPM_RC_INTEGRITY"):
        answer(tpm, activation)


def test_the_answer_to_another_challenge_is_refused() -> None:
    tpm = SoftwareTpm()
    first, second = (begin(request(tpm), Anchors(tpm)) for _ in range(2))
    with pytest.raises(BindingError):
        second.complete(answer(tpm, first), now=NOW)


def test_an_unknown_endorsement_key_is_refused_with_its_name() -> None:
    tpm, other = SoftwareTpm(), SoftwareTpm(endorsement=p256("other ek"))
    name = name_of(tpm.endorsement_public).hex()
    with pytest.raises(SignatureError, match=f"{name} is not registered"):
        begin(request(tpm), Anchors(other))


def test_an_unrestricted_attestation_key_is_not_even_challenged() -> None:
    tpm = SoftwareTpm(attributes=AK_ATTRIBUTES & ~(1 << 16))
    with pytest.raises(SignatureError, match="not restricted"):
        begin(request(tpm), Anchors(tpm))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (EK_ATTRIBUTES & ~(1 << 1), "it lacks fixedtpm"),
        (EK_ATTRIBUTES & ~(1 << 16), "it lacks restricted"),
        (EK_ATTRIBUTES | 1 << 18, "it may sign"),
    ],
)
def test_a_key_that_is_no_endorsement_key_is_not_challenged(attributes: int, reason: str) -> None:
    tpm = SoftwareTpm()
    area = public_area(tpm.endorsement, attributes=attributes, storage=True)
    with pytest.raises(SignatureError, match=reason):
        begin(request(tpm, endorsement=area), Anchors(tpm))


class TestCertificates:
    def test_a_certified_endorsement_key_is_known(self) -> None:
        tpm, root = SoftwareTpm(), sign(ROOT)
        activation = begin(request(tpm, certified(tpm)), Anchors(roots=[root]))
        proved = activation.complete(answer(tpm, activation), now=NOW)
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - this test alone

        assert proved.vouched_by == root.fingerprint(hashes.SHA256()).hex()

    def test_the_certificate_of_another_key_is_refused(self) -> None:
        tpm, other = SoftwareTpm(), SoftwareTpm(endorsement=p256("other ek"))
        with pytest.raises(BindingError, match="not the endorsement key's"):
            begin(request(tpm, certified(other)), Anchors(roots=[sign(ROOT)]))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"uses": (x509.ObjectIdentifier("2.23.133.8.3"),)}, "is for 2.23.133.8.3"),
            ({"usage": usage("digital_signature")}, "allows none of key_encipherment"),
            ({"not_after": NOW - timedelta(seconds=1)}, "no valid path"),
            ({"ca": True}, "is a certification authority's"),
        ],
    )
    def test_a_certificate_for_something_else_is_refused(
        self, change: dict[str, Any], reason: str
    ) -> None:
        tpm = SoftwareTpm()
        with pytest.raises(ChainError, match=reason):
            begin(request(tpm, certified(tpm, **change)), Anchors(roots=[sign(ROOT)]))

    def test_another_root_is_refused(self) -> None:
        tpm = SoftwareTpm()
        other = sign(signing(subject="other", uris=()))
        with pytest.raises(ChainError, match="no valid path"):
            begin(request(tpm, certified(tpm)), Anchors(roots=[other]))


class TestMessages:
    def test_a_request_reads_as_it_was_written(self) -> None:
        tpm = SoftwareTpm()
        asked = request(tpm, certified(tpm))
        again = ActivationRequest.decode(asked.encode())
        assert again.endorsement_key == asked.endorsement_key
        assert again.attestation_key == asked.attestation_key
        assert list(again.certificates) == list(asked.certificates)

    @pytest.mark.parametrize(
        "change",
        [{0: "other"}, {1: "text"}, {2: None}, {3: b""}, {3: [1]}, {3: [b""] * 11}, {4: 1}],
    )
    def test_a_malformed_request_is_refused(self, change: dict[int, object]) -> None:
        value = cbor.decode(request(SoftwareTpm()).encode(), format="test")
        assert isinstance(value, dict)
        with pytest.raises(DecodeError):
            ActivationRequest.decode(cbor.encode({**value, **change}))

    def test_every_cut_of_a_message_is_refused(self) -> None:
        tpm = SoftwareTpm()
        asked = request(tpm).encode()
        challenge = begin(request(tpm), Anchors(tpm)).challenge.encode()
        for size in range(len(asked)):
            with pytest.raises(DecodeError):
                ActivationRequest.decode(asked[:size])
        for size in range(len(challenge)):
            with pytest.raises(DecodeError):
                ActivationChallenge.decode(challenge[:size])
