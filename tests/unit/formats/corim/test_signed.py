# SPDX-License-Identifier: Apache-2.0
"""Signed CoRIMs: who signed what, and until when that holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from support.signing import p256_signer
from support.vectors import vectors
from troth.errors import DecodeError, FreshnessError, SignatureError, UnsupportedError
from troth.formats import cbor, cose
from troth.formats.cbor import Tag
from troth.formats.corim import (
    Comid,
    Corim,
    EnvironmentMap,
    Measurement,
    MeasurementTriple,
    MeasurementValues,
    SignedCorim,
    Svn,
    Triples,
    Validity,
    decode_any,
    sign_corim,
)
from troth.formats.keys import VerificationKey, load_keys, thumbprint

NOW = datetime(2026, 11, 25, tzinfo=UTC)
DAY = timedelta(days=1)
SIGNER = p256_signer("maker", key_id="maker-1")
KEY = VerificationKey(SIGNER.public_key, source="maker.pem")
TRIPLE = MeasurementTriple(
    EnvironmentMap(instance=Tag(560, b"x")), (Measurement(values=MeasurementValues(svn=Svn(1))),)
)
CORIM = Corim(corim_id="c", tags=(Comid(tag_id="t", triples=Triples(reference=(TRIPLE,))),))
META = {0: {0: "ACME"}, 1: {1: Tag(1, 1_800_000_000)}}
CLAIMS = {1: "ACME", 4: 1_800_000_000}


def signed(**headers: object) -> bytes:
    """A signed CoRIM with these protected headers (h3=… for label 3)."""
    protected: dict[int | str, object] = {3: "application/rim+cbor", 15: CLAIMS}
    protected |= {int(name[1:]): value for name, value in headers.items()}
    protected = {label: value for label, value in protected.items() if value is not None}
    return cose.sign1(CORIM.encode(), SIGNER, protected=protected)


class TestPublishedVectors:
    @pytest.mark.parametrize(
        ("name", "corim_id", "profile"),
        [
            ("signed-good-corim", "test corim id", None),
            ("signed-example-corim", "test corim id", "http://example.com/example-profile"),
            ("signed-corim-with-extensions", "test corim id", "http://example.com/test-profile"),
        ],
    )
    def test_they_verify_under_their_key_within_their_period(
        self, name: str, corim_id: str, profile: str | None
    ) -> None:
        folder = vectors("corim")
        keys = load_keys((folder / "ec-p256.jwk").read_bytes(), source="ec-p256.jwk")
        found = SignedCorim.decode((folder / f"{name}.cbor").read_bytes())
        assert found.signer_name == "ACME Ltd signing key"
        assert found.signer_uri == "https://acme.example"
        verified = found.verify(keys, now=datetime(2025, 12, 31, tzinfo=UTC))
        assert (verified.corim.id, verified.corim.profile) == (corim_id, profile)
        assert verified.signer == thumbprint(keys[0])
        with pytest.raises(FreshnessError, match="expired at 2025-12-31T00:00:00Z"):
            found.verify(keys, now=NOW)
        with pytest.raises(FreshnessError, match="not valid before 2021-12-31T00:00:00Z"):
            found.verify(keys, now=datetime(2021, 12, 30, tzinfo=UTC))
        with pytest.raises(SignatureError):
            found.verify([KEY], now=datetime(2025, 12, 31, tzinfo=UTC))


class TestSigning:
    def test_what_is_signed_verifies(self) -> None:
        validity = Validity(NOW - DAY, NOW + DAY)
        data = sign_corim(
            CORIM, SIGNER, signer_name="ACME", signer_uri="https://acme.example", validity=validity
        )
        found = SignedCorim.decode(data)
        verified = found.verify([VerificationKey(p256_signer("x").public_key), KEY], now=NOW)
        assert verified.corim == CORIM
        assert verified.signer == thumbprint(KEY)
        assert verified.signer_name == "ACME"
        assert verified.signature_validity == validity
        assert verified.raw == data
        assert found.signer_uri == "https://acme.example"
        assert found.message.key_id == b"maker-1"

    def test_both_ways_to_name_the_signer_are_written(self) -> None:
        validity = Validity(NOW - DAY, NOW + DAY)
        data = sign_corim(CORIM, SIGNER, signer_name="ACME", validity=validity)
        header = SignedCorim.decode(data).message.protected
        seconds = int(NOW.timestamp())
        assert header[15] == {1: "ACME", 2: "c", 4: seconds + 86_400, 5: seconds - 86_400}
        encoded = header[8]
        assert isinstance(encoded, bytes)
        assert cbor.decode(encoded, format="meta") == {
            0: {0: "ACME"},
            1: {0: Tag(1, seconds - 86_400), 1: Tag(1, seconds + 86_400)},
        }

    def test_the_period_includes_both_ends(self) -> None:
        found = SignedCorim.decode(
            sign_corim(CORIM, SIGNER, signer_name="A", validity=Validity(NOW, NOW + DAY))
        )
        moment = timedelta(seconds=1)
        for when in (NOW, NOW + DAY):
            found.verify([KEY], now=when)
        for when in (NOW - moment, NOW + DAY + moment):
            with pytest.raises(FreshnessError):
                found.verify([KEY], now=when)

    def test_a_signature_without_a_period_holds_as_long_as_the_key(self) -> None:
        found = SignedCorim.decode(sign_corim(CORIM, SIGNER, signer_name="A"))
        assert found.signature_validity is None
        found.verify([KEY], now=NOW + 10_000 * DAY)


class TestRefusals:
    def test_no_key_is_no_trust(self) -> None:
        found = SignedCorim.decode(signed())
        with pytest.raises(SignatureError, match="no key is trusted"):
            found.verify([], now=NOW)

    def test_a_changed_content_is_refused(self) -> None:
        found = SignedCorim.decode(signed())
        other = replace(found.message, payload=replace(CORIM, corim_id="d").encode())
        with pytest.raises(SignatureError):
            replace(found, message=other).verify([KEY], now=NOW)

    def test_signed_rubbish_is_no_corim(self) -> None:
        data = cose.sign1(b"\xa0", SIGNER, protected={3: "application/rim+cbor", 15: CLAIMS})
        with pytest.raises(DecodeError, match="expected a tagged item"):
            SignedCorim.decode(data).verify([KEY], now=NOW)

    @pytest.mark.parametrize(
        ("headers", "reason"),
        [
            ({"h3": "application/json"}, "expected application/rim"),
            ({"h3": None}, "content-type .key 3. is missing"),
            ({"h15": None}, "neither CWT-Claims .15. nor corim-meta .8."),
            ({"h15": {2: "c"}}, "iss .key 1. is missing"),
            ({"h15": {1: "ACME", 4: "soon"}}, "exp: expected seconds"),
            ({"h15": {1: "ACME", 5: 1}}, "nbf without exp"),
            ({"h8": b"\xff"}, "corim-meta"),
            ({"h8": {0: {0: "ACME"}}}, "corim-meta: expected a byte string"),
            ({"h8": cbor.encode({0: {0: "Other"}})}, "signed by 'Other' and by 'ACME'"),
            ({"h8": cbor.encode({0: {0: "ACME"}})}, "different periods"),
            ({"h8": cbor.encode({0: {0: "ACME"}, 2: 1})}, "unknown key 2"),
        ],
    )
    def test_one_defect_in_the_header_is_named(
        self, headers: dict[str, object], reason: str
    ) -> None:
        with pytest.raises(DecodeError, match=reason):
            SignedCorim.decode(signed(**headers))

    def test_both_metadata_that_agree_are_good(self) -> None:
        found = SignedCorim.decode(signed(h8=cbor.encode(META)))
        assert found.signer_name == "ACME"
        assert found.signature_validity == Validity(
            None, datetime.fromtimestamp(1_800_000_000, UTC)
        )
        assert SignedCorim.decode(signed(h15=None, h8=cbor.encode(META))).signer_name == "ACME"

    def test_a_hash_envelope_is_named_as_such(self) -> None:
        with pytest.raises(UnsupportedError, match="a hash envelope"):
            SignedCorim.decode(signed(h258=-16, h259="application/rim+cbor"))


def test_either_kind_is_recognised_and_nothing_else() -> None:
    assert isinstance(decode_any(CORIM.encode()), Corim)
    assert isinstance(decode_any(signed()), SignedCorim)
    for data in (b"", b"{}", b"-----BEGIN", cbor.encode({0: 1})):
        with pytest.raises(DecodeError, match="neither with tag 501") as refusal:
            decode_any(data)
        assert "not JSON" in refusal.value.remedy
