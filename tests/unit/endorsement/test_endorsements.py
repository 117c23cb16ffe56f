# SPDX-License-Identifier: Apache-2.0
"""From a CoRIM to what it endorses: profiles, the generic rules, what is left aside."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256, sha384

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from support.certificates import TestAuthority
from support.signing import p256_signer
from troth.endorsement.build import AttestKey, measured_corim
from troth.endorsement.endorsements import Endorsements, endorsements_of
from troth.endorsement.matching import Measured, compare
from troth.endorsement.profiles import GENERIC_SCHEMES, PROFILES, generic_uri
from troth.endorsement.reference_value import Environment
from troth.endorsement.trust_anchor import TrustAnchor
from troth.errors import ApiMisuseError, ConfigurationError, DecodeError, UnsupportedError
from troth.formats.cbor import Tag
from troth.formats.corim import (
    Comid,
    Corim,
    CoswidTriple,
    Digest,
    EnvironmentClass,
    EnvironmentMap,
    IntRange,
    KeyTriple,
    LinkedTag,
    Measurement,
    MeasurementTriple,
    MeasurementValues,
    OpaqueTag,
    RawValue,
    Svn,
    Triples,
    Version,
)
from troth.formats.corim.key_material import key_tag
from troth.formats.keys import VerificationKey, spki

DIGEST = sha256(b"x").digest()
CLASS = Tag(37, bytes(range(16)))
ENVIRONMENT = EnvironmentMap(environment_class=EnvironmentClass(class_id=CLASS))
KEY = p256_signer("generic").public_key


def read(
    *triples: Triples, profile: str | None = generic_uri("tpm2"), scheme: str = ""
) -> Endorsements:
    tags = tuple(Comid(tag_id=f"t{number}", triples=each) for number, each in enumerate(triples))
    return endorsements_of(
        Corim(corim_id="c", tags=tags, profile=profile), source="test", scheme=scheme
    )


def stating(values: MeasurementValues, key: int | str | Tag | None = "k") -> Triples:
    measurement = Measurement(key=key, values=values)
    return Triples(reference=(MeasurementTriple(ENVIRONMENT, (measurement,)),))


class TestProfiles:
    def test_each_known_profile_names_its_scheme(self) -> None:
        assert {uri: profile.scheme for uri, profile in PROFILES.items()} == {
            "tag:arm.com,2025:psa#1.0.0": "psa",
            "http://arm.com/psa/iot/1": "psa",
            "tag:arm.com,2025:cca_platform#1.0.0": "cca",
            "tag:arm.com,2023:cca_platform#1.0.0": "cca",
            "tag:arm.com,2025:cca_realm#1.0.0": "cca",
            "tag:amd.com,2024:snp-corim-profile": "sev_snp",
            "tag:amd.com,2025:snp-corim-profile": "sev_snp",
            "tag:github.com/parallaxsecond,2023-03-03:tpm": "tpm2",
            "https://enacttrust.com/veraison/1.0.0": "tpm2",
            **{generic_uri(scheme): scheme for scheme in GENERIC_SCHEMES},
        }

    def test_an_oid_that_is_not_known_is_rejected(self) -> None:
        corim = Corim(
            corim_id="c",
            tags=(Comid(tag_id="t", triples=stating(MeasurementValues(svn=Svn(1)))),),
            profile=Tag(111, b"\x2a\x03"),
        )
        with pytest.raises(UnsupportedError, match="'oid:2a03' is not known"):
            endorsements_of(corim, source="test")

    def test_without_a_profile_the_caller_names_the_scheme(self) -> None:
        triples = stating(MeasurementValues(svn=Svn(1)))
        found = read(triples, profile=None, scheme="tdx")
        assert (found.scheme, found.profile) == ("tdx", "")
        with pytest.raises(UnsupportedError, match="no profile"):
            read(triples, profile=None)

    @pytest.mark.parametrize("scheme", ["psa", "cca", "unknown"])
    def test_the_generic_rules_do_not_speak_for_an_arm_scheme(self, scheme: str) -> None:
        with pytest.raises(ConfigurationError, match="Arm schemes need their profile"):
            read(stating(MeasurementValues(svn=Svn(1))), profile=None, scheme=scheme)

    def test_a_scheme_beside_another_profile_is_refused(self) -> None:
        triples = stating(MeasurementValues(svn=Svn(1)))
        assert read(triples, scheme="tpm2").scheme == "tpm2"
        with pytest.raises(ConfigurationError, match="expected tpm2"):
            read(triples, scheme="tdx")


class TestGenericRules:
    @pytest.mark.parametrize(
        ("values", "measured", "other"),
        [
            (
                MeasurementValues(digests=(Digest(1, DIGEST),)),
                Measured(key="k", digests={"sha-256": DIGEST}),
                Measured(key="k", digests={"sha-256": bytes(32)}),
            ),
            (
                MeasurementValues(svn=Svn(3, None)),
                Measured(key="k", svn=3),
                Measured(key="k", svn=4),
            ),
            (
                MeasurementValues(svn=Svn(3, 553)),
                Measured(key="k", svn=4),
                Measured(key="k", svn=2),
            ),
            (
                MeasurementValues(raw_value=RawValue(b"ab", b"\xff\x00")),
                Measured(key="k", raw_value=b"ac"),
                Measured(key="k", raw_value=b"bb"),
            ),
            (
                MeasurementValues(registers={7: (Digest(7, sha384(b"").digest()),)}),
                Measured(key="k", registers={7: {"sha-384": sha384(b"").digest()}}),
                Measured(key="k", registers={8: {"sha-384": sha384(b"").digest()}}),
            ),
            (
                MeasurementValues(flags={3: False}),
                Measured(key="k", flags={"is-debug": False}),
                Measured(key="k", flags={"is-debug": True}),
            ),
            (
                MeasurementValues(int_range=IntRange(2, None)),
                Measured(key="k", integer=2),
                Measured(key="k", integer=1),
            ),
            (
                MeasurementValues(int_range=5),
                Measured(key="k", integer=5),
                Measured(key="k", integer=6),
            ),
            (
                MeasurementValues(version=Version("1.0", 16384)),
                Measured(key="k", version="1.0"),
                Measured(key="k", version="1.1"),
            ),
        ],
    )
    def test_a_measurement_becomes_a_condition(
        self, values: MeasurementValues, measured: Measured, other: Measured
    ) -> None:
        (value,) = read(stating(values)).reference_values
        assert compare(value, measured) == ()
        assert compare(value, other) != ()

    @pytest.mark.parametrize(
        ("values", "name"),
        [
            (MeasurementValues(extensions={-1: "x"}), "member -1"),
            (MeasurementValues(mac_address=bytes(6)), "mac-address"),
            (MeasurementValues(serial_number="1"), "serial-number"),
            (MeasurementValues(crypto_keys=(Tag(560, b"x"),)), "crypto-keys"),
            (MeasurementValues(raw_value=Tag(999, b"x")), "raw-value with tag 999"),
            (MeasurementValues(flags={99: True}), "flag 99"),
        ],
    )
    def test_a_member_without_a_comparison_never_matches(
        self, values: MeasurementValues, name: str
    ) -> None:
        values = replace(values, svn=Svn(1))
        (value,) = read(stating(values)).reference_values
        assert value.uncomparable == (name,)
        assert [each.attribute for each in compare(value, Measured(key="k", svn=1))] == [name]

    @pytest.mark.parametrize(
        ("key", "text"),
        [
            (None, ""),
            (5, "5"),
            ("mrtd", "mrtd"),
            (Tag(37, bytes(16)), "00000000-0000-0000-0000-000000000000"),
            (Tag(111, b"\x2a\x03"), "oid:2a03"),
        ],
    )
    def test_a_measurement_key_becomes_text(self, key: int | str | Tag | None, text: str) -> None:
        (value,) = read(stating(MeasurementValues(svn=Svn(1)), key)).reference_values
        assert value.key == text

    def test_another_kind_of_measurement_key_is_refused(self) -> None:
        with pytest.raises(UnsupportedError, match="a measurement key with tag 601"):
            read(stating(MeasurementValues(svn=Svn(1)), Tag(601, "x")))

    def test_triples_are_states_of_their_own(self) -> None:
        triple = stating(MeasurementValues(svn=Svn(1))).reference[0]
        found = read(Triples(reference=(triple, triple)), Triples(reference=(triple,)))
        assert [(value.id, value.state) for value in found.reference_values] == [
            ("c/t0#0", "c/t0#state0"),
            ("c/t0#1", "c/t0#state1"),
            ("c/t1#0", "c/t1#state0"),
        ]

    @pytest.mark.parametrize(
        ("environment", "reason"),
        [
            (
                EnvironmentMap(environment_class=EnvironmentClass(vendor="ACME")),
                "it would be about every Attester",
            ),
            (EnvironmentMap(instance=Tag(554, "key")), "an identifier with tag 554"),
            (
                EnvironmentMap(environment_class=EnvironmentClass(class_id=Tag(999, b"x"))),
                "an identifier with tag 999",
            ),
        ],
    )
    def test_values_about_nobody_in_particular_are_refused(
        self, environment: EnvironmentMap, reason: str
    ) -> None:
        measurement = Measurement(values=MeasurementValues(svn=Svn(1)))
        with pytest.raises(DecodeError, match=reason):
            read(Triples(reference=(MeasurementTriple(environment, (measurement,)),)))

    @pytest.mark.parametrize("form", ["key", "cose"])
    def test_keys_are_taken_in_both_forms(self, form: str) -> None:
        numbers = KEY.public_numbers()
        cose = {1: 2, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
        tag = key_tag(KEY) if form == "key" else Tag(558, cose)
        (anchor,) = read(Triples(attest_key=(KeyTriple(ENVIRONMENT, (tag,)),))).trust_anchors
        assert anchor.public_key == spki(KEY)

    def test_a_symmetric_key_is_refused(self) -> None:
        tag = Tag(558, {1: 4, -1: bytes(32)})
        with pytest.raises(DecodeError, match="is no secret any more"):
            read(Triples(attest_key=(KeyTriple(ENVIRONMENT, (tag,)),)))

    def test_a_private_key_is_refused(self) -> None:
        pem = "-----BEGIN PRIVATE KEY-----\nMEE=\n-----END PRIVATE KEY-----"
        with pytest.raises(DecodeError, match="PRIVATE KEY; expected PUBLIC KEY"):
            read(Triples(attest_key=(KeyTriple(ENVIRONMENT, (Tag(554, pem),)),)))

    def test_a_certificate_is_a_root_for_its_scheme(self) -> None:
        certificate = x509.load_pem_x509_certificate(TestAuthority("root").bundle)
        pem = certificate.public_bytes(Encoding.PEM).decode()
        vendor = EnvironmentMap(environment_class=EnvironmentClass(vendor="ACME", model="R"))
        for tag in (Tag(555, pem), Tag(562, certificate.public_bytes(Encoding.DER))):
            (anchor,) = read(Triples(attest_key=(KeyTriple(vendor, (tag,)),))).trust_anchors
            assert anchor.x509_certificate() == certificate
            assert anchor.environment.vendor == "ACME"
            with pytest.raises(ApiMisuseError):
                anchor.verification_key()

    def test_a_key_of_nobody_in_particular_is_refused(self) -> None:
        vendor = EnvironmentMap(environment_class=EnvironmentClass(vendor="ACME"))
        with pytest.raises(DecodeError, match="the key would be every Attester's"):
            read(Triples(attest_key=(KeyTriple(vendor, (key_tag(KEY),)),)))


class TestWhatIsLeftAside:
    def test_it_is_listed_and_does_no_harm(self) -> None:
        triples = stating(MeasurementValues(svn=Svn(1)))
        full = replace(
            triples,
            endorsed=triples.reference,
            coswid=(CoswidTriple(ENVIRONMENT, ("swid",)),),
            extensions={50: [1]},
        )
        corim = Corim(
            corim_id="c",
            tags=(OpaqueTag(505, b"\xa0"), Comid(tag_id="t", triples=full), OpaqueTag(999, 1)),
            profile=generic_uri("tpm2"),
        )
        found = endorsements_of(corim, source="test")
        assert len(found.reference_values) == 1
        assert found.unused == (
            "tags[0]: CoSWID is kept and not read",
            "tags[1].comid.triples: endorsed values are kept and not read",
            "tags[1].comid.triples: links to CoSWID are kept and not read",
            "tags[1].comid.triples: triples of kind 50 are kept and not read",
            "tags[2]: tag 999 is kept and not read",
        )

    def test_a_corim_with_nothing_else_is_refused(self) -> None:
        triples = stating(MeasurementValues(svn=Svn(1)))
        with pytest.raises(UnsupportedError, match="nothing in it takes part in appraisal"):
            read(Triples(endorsed=triples.reference))


class TestIdentifiers:
    def test_two_tags_of_one_id_are_refused(self) -> None:
        tag = Comid(tag_id="t", triples=stating(MeasurementValues(svn=Svn(1))))
        corim = Corim(corim_id="c", tags=(tag, tag), profile=generic_uri("tpm2"))
        with pytest.raises(DecodeError, match=r"tags\[1\].*a second CoMID with the tag id 't'"):
            endorsements_of(corim, source="test")

    @pytest.mark.parametrize("name", ["a\nb", "a\x1b[1m", "a\u202eb"])
    def test_an_identifier_that_does_not_print_is_refused(self, name: str) -> None:
        tag = Comid(tag_id="t", triples=stating(MeasurementValues(svn=Svn(1))))
        for corim in (
            Corim(corim_id=name, tags=(tag,), profile=generic_uri("tpm2")),
            Corim(corim_id="c", tags=(replace(tag, tag_id=name),), profile=generic_uri("tpm2")),
        ):
            with pytest.raises(DecodeError, match="characters that do not print"):
                endorsements_of(corim, source="test")

    def test_replaced_tags_are_named_as_in_identifiers(self) -> None:
        tag = Comid(
            tag_id="t",
            triples=stating(MeasurementValues(svn=Svn(1))),
            linked_tags=(LinkedTag("a/b", 1), LinkedTag(bytes(16), 1), LinkedTag("c", 0)),
        )
        corim = Corim(corim_id="c", tags=(tag,), profile=generic_uri("tpm2"))
        assert endorsements_of(corim, source="test").replaces == (
            "a%2Fb",
            "00000000-0000-0000-0000-000000000000",
        )


def test_a_trust_anchor_is_a_key_or_a_certificate() -> None:
    for public_key, certificate in ((b"", b""), (b"x", b"x")):
        with pytest.raises(ApiMisuseError):
            TrustAnchor(
                id="c/t#key0",
                scheme="tpm2",
                environment=Environment(class_id=b"x"),
                public_key=public_key,
                certificate=certificate,
            )


def test_a_generic_corim_can_be_built_and_read_back() -> None:
    corim = measured_corim(
        corim_id="node",
        scheme="tpm2",
        class_id=b"fleet",
        registers={0: [DIGEST, sha384(b"x").digest()], 7: [DIGEST]},
        digests={"kernel": [DIGEST]},
        keys=[AttestKey(instance_id=b"ak name", key=VerificationKey(KEY))],
    )
    found = endorsements_of(Corim.decode(corim.encode()), source="test")
    kernel, pcrs = found.reference_values
    assert (kernel.key, kernel.digests) == ("kernel", {"sha-256": DIGEST})
    assert pcrs.registers == {
        0: {"sha-256": DIGEST, "sha-384": sha384(b"x").digest()},
        7: {"sha-256": DIGEST},
    }
    assert kernel.state == pcrs.state
    assert found.trust_anchors[0].environment.instance_id == b"ak name"
