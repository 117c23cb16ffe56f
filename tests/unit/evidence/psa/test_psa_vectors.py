# SPDX-License-Identifier: Apache-2.0
"""The independent PSA vectors, each with what its provenance says a Verifier should conclude."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from support.diag import read_diag
from support.evidence import FixedAnchors, verify
from support.vectors import vectors
from troth.errors import DecodeError, FreshnessError, SignatureError
from troth.evidence.psa import SCHEME, PsaClaims, decode_claims
from troth.formats import cbor
from troth.formats.keys import load_keys

_NONCE = b"\x01" * 32


def from_hex(name: str) -> bytes:
    return bytes.fromhex("".join((vectors("psa") / "rfc9783" / name).read_text().split()))


def jwk(path: str) -> FixedAnchors:
    text = (vectors("psa") / path).read_text()
    # One file is folded as RFC 8792 has it, under a banner.
    unfolded = re.sub(r"\\\n\s*\\", "", text[text.index("{") :])
    return FixedAnchors(*load_keys(unfolded.encode(), source=path))


def from_json(name: str) -> dict[int, Any]:
    """Return the CBOR claims map that Veraison's JSON claims stand for."""
    source = json.loads((vectors("psa") / "veraison-services" / name).read_text())
    octets = base64.b64decode
    keys = {
        "psa-client-id": 2394,
        "psa-security-lifecycle": 2395,
        "psa-implementation-id": 2396,
        "psa-boot-seed": 2397,
        "psa-software-components": 2399,
        "psa-verification-service-indicator": 2400,
        "psa-nonce": 10,
        "psa-instance-id": 256,
        "eat-profile": 265,
    }
    attributes = {"measurement-type": 1, "measurement-value": 2, "version": 4, "signer-id": 5}

    def value(name: str, given: Any) -> Any:
        if name == "psa-software-components":
            return [
                {attributes[key]: value(key, member) for key, member in entry.items()}
                for entry in given
            ]
        if isinstance(given, list):
            return [octets(member) for member in given]
        octet_names = {"measurement-value", "signer-id", "psa-nonce", "psa-boot-seed"}
        if name in octet_names or name.endswith(("-instance-id", "-implementation-id")):
            return octets(given)
        return given

    return {keys[name]: value(name, given) for name, given in source.items()}


@pytest.mark.parametrize(
    ("token", "key"),
    [("psa-sign1.hex", "tfm-es-iak.json"), ("psa-mac0.hex", "tfm-hs-iak.json")],
)
def test_the_examples_of_rfc_9783_verify_under_their_keys(token: str, key: str) -> None:
    verified = verify(
        from_hex(token),
        "psa",
        anchors=jwk(f"rfc9783/{key}"),
        challenge=_NONCE,
        allow_test_keys=True,
    )
    claims = verified.evidence.claims
    assert claims.profile == "tag:psacertified.org,2023:psa#tfm"
    assert claims.lifecycle_value == 0x3000
    assert [each.measurement_type for each in claims.software_components] == ["PRoT"]
    assert verified.boot_session == bytes(8)
    assert len(verified.insecure) == 1


@pytest.mark.parametrize(
    ("token", "key"),
    [("psa-sign1.hex", "tfm-hs-iak.json"), ("psa-mac0.hex", "tfm-es-iak.json")],
)
def test_they_do_not_verify_under_each_others(token: str, key: str) -> None:
    with pytest.raises(SignatureError):
        verify(
            from_hex(token),
            "psa",
            anchors=jwk(f"rfc9783/{key}"),
            challenge=_NONCE,
            allow_test_keys=True,
        )


@pytest.mark.parametrize(
    ("token", "key"),
    [("psa-sign1.hex", "tfm-es-iak.json"), ("psa-mac0.hex", "tfm-hs-iak.json")],
)
def test_their_keys_are_public_and_refused_by_default(token: str, key: str) -> None:
    with pytest.raises(SignatureError, match=r"published test key .*RFC 9783"):
        verify(from_hex(token), "psa", anchors=jwk(f"rfc9783/{key}"), challenge=_NONCE)


def test_the_claims_of_the_example_are_the_ones_that_the_rfc_prints() -> None:
    printed = read_diag((vectors("psa") / "rfc9783/sign1-claims.diag").read_text())
    assert SCHEME.decode(from_hex("psa-sign1.hex")).claims == decode_claims(printed)


def test_the_envelope_of_the_example_is_the_one_that_the_rfc_prints() -> None:
    printed = read_diag((vectors("psa") / "rfc9783/psa-sign1.diag").read_text())
    assert cbor.decode(from_hex("psa-sign1.hex"), format="token") == printed


def test_the_good_token_of_veraison_verifies_and_holds_the_claims_that_it_was_made_from() -> None:
    token = (vectors("psa") / "veraison-services/psa.good.cose").read_bytes()
    claims = decode_claims(from_json("psa.good.json"))
    verified = verify(
        token,
        "psa",
        anchors=jwk("veraison-services/ec.p256.jwk"),
        challenge=claims.nonce,
        allow_test_keys=True,
    )
    assert verified.evidence.claims == claims
    assert verified.boot_session == bytes.fromhex("deadbeef" * 8)
    assert claims.to_json()["security-lifecycle"] == "secured"


def test_the_freshness_failure_of_veraison_is_one_here() -> None:
    """Its expected result names both nonces; ours does too."""
    token = (vectors("psa") / "veraison-services/psa.good.cose").read_bytes()
    problem = json.loads(
        (vectors("psa") / "veraison-services/result-psa.freshness-fail.json").read_text()
    )["PSA_IOT"]["ear.veraison.policy-claims"]["problem"]
    actual, session = re.findall(r"\(([0-9a-f]{64})\)", problem)
    with pytest.raises(FreshnessError, match=f"{actual}, expected {session}"):
        verify(
            token,
            "psa",
            anchors=jwk("veraison-services/ec.p256.jwk"),
            challenge=bytes.fromhex(session),
            allow_test_keys=True,
        )


@pytest.mark.parametrize(
    "name", ["claims-psa.good.json", "claims-psa.badinstance.json", "claims-psa.badswcomp.json"]
)
def test_claims_that_only_appraisal_can_fault_decode(name: str) -> None:
    if name == "claims-psa.badswcomp.json":
        claims = from_json(name)
        assert len(claims[2399][0][2]) == 32
    assert isinstance(decode_claims(from_json(name)), PsaClaims)


def test_missing_claims_are_refused() -> None:
    with pytest.raises(DecodeError, match="is missing"):
        decode_claims(from_json("claims-psa.missingclaims.json"))


def test_more_than_one_nonce_is_refused() -> None:
    with pytest.raises(DecodeError, match=r"claim 10 \(nonce\) is the array"):
        decode_claims(from_json("claims-psa.multinonce.json"))
