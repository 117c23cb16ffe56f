# SPDX-License-Identifier: Apache-2.0
"""CMW: records, tags and collections in JSON, CBOR, X.509 and COSE."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from support.diag import encode_diag
from support.vectors import vectors
from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, SignatureError
from troth.formats import cbor, cmw
from troth.formats.cmw import CmwCollection, CmwRecord, Indicator
from troth.formats.cose import CONTENT_TYPE, sign1
from troth.formats.limits import MAX_CMW_DEPTH
from troth.formats.signer import LocalSigner
from troth.formats.verification_key import VerificationKey

EAT = CmwRecord("application/eat+cwt", b"\xd2\x84", Indicator.EVIDENCE)
BOTH = CmwCollection(
    {"platform": EAT, "realm": CmwRecord(263, b"\xd2")}, "tag:example.com,2024:both"
)
SIGNER = LocalSigner(ec.generate_private_key(ec.SECP256R1()))
KEY = VerificationKey(SIGNER.public_key)


ACCEPTED = [
    ("[263, h'01']", CmwRecord(263, b"\1")),
    ("[0, h'01']", CmwRecord(0, b"\1")),
    ("[65535, h'01']", CmwRecord(65535, b"\1")),
    (
        "[\"application/eat+cwt\", h'01', 31]",
        CmwRecord("application/eat+cwt", b"\1", Indicator(31)),
    ),
    ("[_ 263, h'01']", CmwRecord(263, b"\1")),
    ("1668546817(h'01')", CmwRecord(0, b"\1", tagged=True)),
    ("1668547081(h'01')", CmwRecord(263, b"\1", tagged=True)),
    ("1668612070(h'01')", CmwRecord(64999, b"\1", tagged=True)),
    ("1668612095(h'01')", CmwRecord(65024, b"\1", tagged=True)),
    ("{0: [263, h'01']}", CmwCollection({0: CmwRecord(263, b"\1")})),
    ("{_ \"a\": [263, h'01']}", CmwCollection({"a": CmwRecord(263, b"\1")})),
    (
        '{-1: {"x": 1668546817(h\'01\')}, "__cmwc_t": "1.2.3"}',
        CmwCollection({-1: CmwCollection({"x": CmwRecord(0, b"\1", tagged=True)})}, "1.2.3"),
    ),
]


@pytest.mark.parametrize(("notation", "expected"), ACCEPTED)
def test_cbor_wrappers_are_decoded(notation: str, expected: cmw.Cmw) -> None:
    assert cmw.decode(encode_diag(notation)) == expected
    assert cmw.decode(cmw.encode_cbor(expected)) == expected


REFUSED_CBOR = [
    "[]",
    "[263]",
    "[263, h'01', 4, 4]",
    '[263, "AQ"]',
    "[263, h'']",
    "[-1, h'01']",
    "[65536, h'01']",
    "[true, h'01']",
    "[1.0, h'01']",
    "[h'01', h'01']",
    "[\"not a media type\", h'01']",
    "[\"\", h'01']",
    "[263, h'01', 0]",
    "[263, h'01', 32]",
    "[263, h'01', -1]",
    "[263, h'01', true]",
    "[263, h'01', false]",
    "[263, h'01', null]",
    "[263, h'01', \"4\"]",
    "1668546816(h'01')",
    "1668547072(h'01')",  # the last octet would be zero
    "1668612096(h'01')",
    "18(h'01')",
    '1668546817("01")',
    "1668546817(h'')",
    "1668546817([263, h'01'])",
    "{}",
    '{"__cmwc_t": "a:b"}',
    "{0: 1}",
    "{0: h'01'}",
    "{h'00': [263, h'01']}",
    "{0: [263, h'01'], 0: [263, h'01']}",
    "{\"a\": [263, h'01'], \"a\": [263, h'02']}",
    '{0: [263, h\'01\'], "__cmwc_t": ""}',
    "{0: [263, h'01'], \"__cmwc_t\": 1}",
    '{0: [263, h\'01\'], "__cmwc_t": "relative"}',
    '{0: [263, h\'01\'], "__cmwc_t": "a:b#fragment"}',
    '{0: [263, h\'01\'], "__cmwc_t": "a:b c"}',
    '{0: [263, h\'01\'], "__cmwc_t": "a:b\\n"}',
    '{0: [263, h\'01\'], "__cmwc_t": "1.02"}',
    '{0: [263, h\'01\'], "__cmwc_t": "3.1"}',
    "263",
    '"text"',
    "h'01'",
    "null",
]


@pytest.mark.parametrize("notation", REFUSED_CBOR)
def test_other_cbor_is_refused(notation: str) -> None:
    with pytest.raises(DecodeError, match="CMW"):
        cmw.decode(encode_diag(notation))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["application/eat+cwt", "AQ"]', CmwRecord("application/eat+cwt", b"\1")),
        ('["application/eat+cwt","AQ",8]', CmwRecord("application/eat+cwt", b"\1", Indicator(8))),
        (
            '{"a": ["x/y", "AQ"], "__cmwc_t": "2.999"}',
            CmwCollection({"a": CmwRecord("x/y", b"\1")}, "2.999"),
        ),
        (
            '{"0": {"b": ["x/y", "AQ"]}}',
            CmwCollection({"0": CmwCollection({"b": CmwRecord("x/y", b"\1")})}),
        ),
    ],
)
def test_json_wrappers_are_decoded(text: str, expected: cmw.Cmw) -> None:
    assert cmw.decode(text.encode()) == expected
    assert cmw.decode(cmw.encode_json(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '["x/y"]',
        '["x/y", ""]',
        '["x/y", "AQ=="]',
        '["x/y", "A"]',
        '["x/y", "+w"]',
        '["x/y", "AQ", 0]',
        '["x/y", "AQ", 32]',
        '["x/y", "AQ", true]',
        '["x/y", "AQ", 4.0]',
        '["x/y", "AQ", 4, 4]',
        '["x", "AQ"]',
        '[263, "AQ"]',
        "{}",
        '{"__cmwc_t": "a:b"}',
        '{"a": ["x/y", "AQ"], "a": ["x/y", "AQ"]}',
        '{"a": "AQ"}',
        '{"a": ["x/y", "AQ"], "__cmwc_t": null}',
        '["x/y", "AQ"',
        '["x/y", "AQ"] []',
    ],
)
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match="CMW"):
        cmw.decode(text.encode())


@pytest.mark.parametrize("data", [b"", b" [", b"\xef\xbb\xbf[", b"x", b"\xd2\x84", b"\xff"])
def test_first_octets_of_neither_form_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="CMW"):
        cmw.decode(data)


def test_collections_nest_to_the_limit_and_no_further() -> None:
    wrapper: cmw.Cmw = EAT
    for _ in range(MAX_CMW_DEPTH):
        wrapper = CmwCollection({"in": wrapper})
    for encoded in (cmw.encode_cbor(wrapper), cmw.encode_json(wrapper)):
        assert cmw.decode(encoded) == wrapper
    beyond = CmwCollection({"in": wrapper})
    for encoded in (cmw.encode_cbor(beyond), cmw.encode_json(beyond)):
        with pytest.raises(LimitExceededError, match="max_cmw_depth"):
            cmw.decode(encoded)


def test_the_media_type_is_given_in_one_spelling_whatever_the_record_says() -> None:
    assert CmwRecord(263, b"\1").media_type == "application/eat+cwt"
    assert CmwRecord(10003, b"\1", tagged=True).media_type.startswith("application/eat+cwt; eat_")
    assert CmwRecord("Application/EAT+CWT", b"\1").media_type == "application/eat+cwt"
    assert CmwRecord(64999, b"\1").media_type == ""


def test_json_has_no_numbers_for_types_nor_labels() -> None:
    assert json.loads(cmw.encode_json(CmwRecord(263, b"\1"))) == ["application/eat+cwt", "AQ"]
    with pytest.raises(ApiMisuseError, match="64999"):
        cmw.encode_json(CmwRecord(64999, b"\1"))
    with pytest.raises(ApiMisuseError, match="label 0"):
        cmw.encode_json(CmwCollection({0: EAT}))


@pytest.mark.parametrize(
    ("kind", "value", "indicator", "tagged"),
    [
        ("nonsense", b"\1", 0, False),
        (-1, b"\1", 0, False),
        (65536, b"\1", 0, False),
        (True, b"\1", 0, False),
        (263, b"", 0, False),
        (263, b"\1", 32, False),
        (263, b"\1", -1, False),
        (263, b"\1", 4, True),
        (65025, b"\1", 0, True),
        ("x/y", b"\1", 0, True),
    ],
)
def test_a_record_that_would_be_refused_cannot_be_made(
    kind: str | int, value: bytes, indicator: int, *, tagged: bool
) -> None:
    with pytest.raises(ApiMisuseError):
        CmwRecord(kind, value, indicator, tagged)  # type: ignore[arg-type]


def test_a_collection_that_would_be_refused_cannot_be_made() -> None:
    with pytest.raises(ApiMisuseError, match="no entry"):
        CmwCollection({})
    with pytest.raises(ApiMisuseError, match="absolute URI"):
        CmwCollection({"a": EAT}, "nonsense")
    with pytest.raises(ApiMisuseError, match="label"):
        CmwCollection({"__cmwc_t": EAT})
    with pytest.raises(ApiMisuseError, match="label"):
        CmwCollection({True: EAT})


def test_a_collection_does_not_change_with_the_mapping_it_was_made_from() -> None:
    entries: dict[str | int, cmw.Cmw] = {"a": EAT}
    collection = CmwCollection(entries)
    entries["b"] = EAT
    assert list(collection.entries) == ["a"]


# Signed wrappers.


def test_a_signed_wrapper_verifies_under_its_key_and_no_other() -> None:
    signed = cmw.sign_cmw(BOTH, SIGNER)
    assert cmw.verify_signed_cmw(signed, KEY, algorithms=["ES256"]) == BOTH
    other = VerificationKey(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(SignatureError, match="does not verify"):
        cmw.verify_signed_cmw(signed, other, algorithms=["ES256"])
    with pytest.raises(SignatureError, match="not allowed"):
        cmw.verify_signed_cmw(signed, KEY, algorithms=["ES384"])


def test_a_signed_wrapper_verifies_with_and_without_its_tag() -> None:
    tagged = cbor.decode(cmw.sign_cmw(BOTH, SIGNER), format="x")
    assert isinstance(tagged, cbor.Tag)
    untagged = cbor.encode(tagged.value)
    assert cmw.verify_signed_cmw(untagged, KEY, algorithms=["ES256"]) == BOTH


@pytest.mark.parametrize(
    "protected", [{}, {CONTENT_TYPE: "application/cbor"}, {CONTENT_TYPE: "application/cmw+json"}]
)
def test_something_else_that_the_same_key_signed_is_no_signed_wrapper(
    protected: dict[int | str, object],
) -> None:
    signed = sign1(cmw.encode_cbor(BOTH), SIGNER, protected=protected)
    with pytest.raises(SignatureError, match=r"cmw\+cbor"):
        cmw.verify_signed_cmw(signed, KEY, algorithms=["ES256"])


def test_a_content_type_outside_the_signature_does_not_count() -> None:
    signed = sign1(cmw.encode_cbor(BOTH), SIGNER, unprotected={CONTENT_TYPE: cmw.CMW_CBOR})
    with pytest.raises(SignatureError, match=r"cmw\+cbor"):
        cmw.verify_signed_cmw(signed, KEY, algorithms=["ES256"])


def test_a_signed_payload_that_is_no_wrapper_is_refused() -> None:
    for payload in (b"\x01", cmw.encode_json(EAT)):
        signed = sign1(payload, SIGNER, protected={CONTENT_TYPE: cmw.CMW_CBOR})
        with pytest.raises(DecodeError, match="CMW"):
            cmw.verify_signed_cmw(signed, KEY, algorithms=["ES256"])


# X.509.


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("size", [1, 100, 200, 300, 40_000])
def test_the_extension_round_trips_at_every_length_form(size: int, *, as_json: bool) -> None:
    record = CmwRecord("application/eat+cwt", bytes(size))
    encoded = cmw.encode_extension(record, json=as_json)
    assert encoded[0] == (0x0C if as_json else 0x04)
    assert cmw.decode_extension(encoded) == record


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x04",
        b"\x04\x80",
        b"\x04\x00",
        b"\x04\x05\x82\x00\x41\x01",
        b"\x04\x03\x82\x00\x41\x01",
        b"\x04\x81\x04\x82\x00\x41\x01",
        b"\x04\x82\x00\x04\x82\x00\x41\x01",
        b"\x04\x04\x82\x00\x41\x01\x00",
        b"\x04\x80\x82\x00\x41\x01\x00\x00",
        b"\x24\x04\x82\x00\x41\x01",
        b"\x30\x04\x82\x00\x41\x01",
        b"\x0c\x04\x82\x00\x41\x01",
        b"\x04\x0c" + b'["x/y","AQ"]',
        b"\x16\x0c" + b'["x/y","AQ"]',
    ],
)
def test_an_extension_that_is_not_der_or_not_what_its_type_says_is_refused(value: bytes) -> None:
    with pytest.raises(DecodeError):
        cmw.decode_extension(value)


def test_both_choices_of_the_extension_are_told_apart() -> None:
    assert cmw.decode_extension(b"\x04\x04\x82\x00\x41\x01") == CmwRecord(0, b"\1")
    assert cmw.decode_extension(b'\x0c\x0c["x/y","AQ"]') == CmwRecord("x/y", b"\1")


def certificate(value: bytes | None) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
    )
    if value is not None:
        extension = x509.UnrecognizedExtension(cmw.CMW_OID, value)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256())


def test_a_certificate_gives_the_wrapper_that_it_carries() -> None:
    assert cmw.from_certificate(certificate(cmw.encode_extension(BOTH))) == BOTH
    assert cmw.from_certificate(certificate(None)) is None
    with pytest.raises(DecodeError):
        cmw.from_certificate(certificate(b"\x04\x00"))


# Wrappers from elsewhere.


@pytest.mark.parametrize(
    "name",
    [
        "collection-cbor-ok.cbor",
        "collection-cbor-ok-2.cbor",
        "collection-cbor-mixed-keys.cbor",
        "collection-cbor-ok.diag",
        "draft/cmw-example-1.diag",
        "draft/cmw-example-2.diag",
        "draft/cmw-example-3.diag",
        "draft/cmw-example-tag-1.diag",
        "draft/collection-example-2.diag",
    ],
)
def test_cbor_examples_are_accepted_and_written_back(name: str) -> None:
    path = vectors("cmw") / name
    data = encode_diag(path.read_text()) if path.suffix == ".diag" else path.read_bytes()
    wrapper = cmw.decode(data)
    assert cbor.decode(cmw.encode_cbor(wrapper), format="x") == cbor.decode(data, format="x")


@pytest.mark.parametrize(
    "name", ["collection-ok.json", "draft/cmw-example-1.json", "draft/collection-example-2.json"]
)
def test_json_examples_are_accepted_and_written_back(name: str) -> None:
    data = (vectors("cmw") / name).read_bytes()
    assert json.loads(cmw.encode_json(cmw.decode(data))) == json.loads(data)


def test_the_example_of_a_jwt_claim_is_accepted() -> None:
    claims = json.loads((vectors("cmw") / "draft/eat-example-1.json").read_bytes())
    wrapper = cmw.from_json_value(claims["cmw"])
    assert isinstance(wrapper, CmwCollection)
    assert wrapper.type == "tag:example.com,2024:another-composite-attester"


@pytest.mark.parametrize(
    ("name", "label"), [("x509-cert+cbor-cmw.der", 1), ("x509-cert+json-cmw.der", "a")]
)
def test_example_certificates_give_their_collections(name: str, label: str | int) -> None:
    encoded = (vectors("cmw") / name).read_bytes()
    wrapper = cmw.from_certificate(x509.load_der_x509_certificate(encoded))
    assert isinstance(wrapper, CmwCollection)
    assert label in wrapper.entries


def test_the_key_attestation_example_is_a_typed_collection() -> None:
    wrapper = cmw.decode(encode_diag((vectors("kat") / "cab-ex-1.diag").read_text()))
    assert isinstance(wrapper, CmwCollection)
    assert wrapper.type == "tag:ietf.org,2024-02-29:rats/kat"
    kinds = {entry.media_type for entry in wrapper.entries.values() if isinstance(entry, CmwRecord)}
    assert kinds == {"application/eat+cwt"}
