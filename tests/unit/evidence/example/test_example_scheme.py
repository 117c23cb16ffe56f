# SPDX-License-Identifier: Apache-2.0
"""The template's tests are a template too: one accepted journey, and a neighbour for each step."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.evidence import FixedAnchors
from troth.errors import ApiMisuseError, DecodeError, FreshnessError, SignatureError
from troth.evidence.attester import Attester
from troth.evidence.evidence import NonceMatched
from troth.evidence.example import SCHEME, ExampleAttester
from troth.evidence.registry import SCHEMES
from troth.formats import cbor
from troth.formats.cose import sign1
from troth.formats.keys import VerificationKey
from troth.formats.signer import LocalSigner

_KEY = ec.generate_private_key(ec.SECP256R1())
_ANCHORS = FixedAnchors(VerificationKey(_KEY.public_key()), identity=(b"", b"device 7"))
_CHALLENGE = bytes(range(32))
_ATTESTER: Attester = ExampleAttester(LocalSigner(_KEY), serial="device 7", firmware=b"f" * 32)


def test_evidence_from_the_attester_verifies() -> None:
    data = _ATTESTER.attest(_CHALLENGE)
    assert SCHEME.recognises(data)
    verified = SCHEME.verify(SCHEME.decode(data), trust_anchors=_ANCHORS, freshness=_CHALLENGE)
    assert verified.freshness == NonceMatched(_CHALLENGE)
    assert verified.instance_id == b"device 7"
    assert not verified.insecure
    (claims_set,) = verified.claims_sets
    assert claims_set.claims == {
        "challenge": _CHALLENGE.hex(),
        "serial": "device 7",
        "firmware": "66" * 32,
    }


def test_another_device_has_no_anchor() -> None:
    data = ExampleAttester(LocalSigner(_KEY), serial="device 8", firmware=b"f" * 32).attest(
        _CHALLENGE
    )
    with pytest.raises(SignatureError, match="no trust anchor"):
        SCHEME.verify(SCHEME.decode(data), trust_anchors=_ANCHORS, freshness=_CHALLENGE)


def test_another_key_does_not_verify() -> None:
    other = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
    data = ExampleAttester(other, serial="device 7", firmware=b"f" * 32).attest(_CHALLENGE)
    with pytest.raises(SignatureError, match="does not verify"):
        SCHEME.verify(SCHEME.decode(data), trust_anchors=_ANCHORS, freshness=_CHALLENGE)


def test_another_challenge_is_refused() -> None:
    evidence = SCHEME.decode(_ATTESTER.attest(_CHALLENGE))
    with pytest.raises(FreshnessError):
        SCHEME.verify(evidence, trust_anchors=_ANCHORS, freshness=bytes(32))


@pytest.mark.parametrize(
    "claims",
    [
        {"serial": "s", "firmware": bytes(32)},
        {"challenge": bytes(31), "serial": "s", "firmware": bytes(32)},
        {"challenge": bytes(32), "serial": "", "firmware": bytes(32)},
        {"challenge": bytes(32), "serial": b"s", "firmware": bytes(32)},
        {"challenge": bytes(32), "serial": "s", "firmware": bytes(20)},
        [],
    ],
)
def test_claims_of_another_form_are_refused(claims: object) -> None:
    token = sign1(cbor.encode(claims), LocalSigner(_KEY))
    with pytest.raises(DecodeError, match="example claims"):
        SCHEME.decode(cbor.encode(["example", token]))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x82\x67example\x01", b"\x82\x67exemple\x40"])
def test_other_octets_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(data)


def test_the_attester_refuses_a_challenge_of_another_size() -> None:
    with pytest.raises(ApiMisuseError, match="32 octets"):
        _ATTESTER.attest(bytes(33))


def test_it_is_in_no_registry() -> None:
    assert SCHEME.name not in SCHEMES
