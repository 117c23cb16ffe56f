# SPDX-License-Identifier: Apache-2.0
"""The rules of the PSA and CCA profiles, each broken by one change to a good CoRIM."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256, sha384, sha512

import pytest

from support.signing import p256_signer
from troth.endorsement.build import (
    AttestKey,
    Component,
    cca_platform_corim,
    cca_realm_corim,
    psa_corim,
)
from troth.endorsement.endorsements import Endorsements, endorsements_of
from troth.errors import DecodeError
from troth.formats.cbor import Tag
from troth.formats.corim import (
    Comid,
    Corim,
    Digest,
    EnvironmentClass,
    EnvironmentMap,
    KeyTriple,
    Measurement,
    MeasurementTriple,
    MeasurementValues,
    RawValue,
    Svn,
    Triples,
    Version,
)
from troth.formats.corim.key_material import key_tag
from troth.formats.keys import VerificationKey

KEY = p256_signer("arm").public_key
DIGEST = sha256(b"firmware").digest()
SIGNER = sha256(b"signer").digest()
CLASS = bytes(range(32))
UEID = b"\x01" + bytes(range(32))
ENVIRONMENT = EnvironmentMap(
    environment_class=EnvironmentClass(class_id=Tag(560, CLASS)), instance=Tag(550, UEID)
)
COMPONENT = Measurement(
    key="psa.software-component",
    values=MeasurementValues(
        version=Version("1.0"),
        digests=(Digest("sha-256", DIGEST),),
        name="BL",
        crypto_keys=(Tag(560, SIGNER),),
    ),
)


def corim(triples: Triples, profile: str = "tag:arm.com,2025:psa#1.0.0") -> Corim:
    return Corim(corim_id="c", tags=(Comid(tag_id="t", triples=triples),), profile=profile)


def with_component(
    measurement: Measurement, environment: EnvironmentMap = ENVIRONMENT
) -> Endorsements:
    triple = MeasurementTriple(environment, (measurement,))
    return endorsements_of(corim(Triples(reference=(triple,))), source="test")


def with_key(
    keys: tuple[Tag, ...],
    environment: EnvironmentMap = ENVIRONMENT,
    **conditions: object,
) -> Endorsements:
    triple = KeyTriple(environment, keys, **conditions)  # type: ignore[arg-type]
    return endorsements_of(corim(Triples(attest_key=(triple,))), source="test")


def changed(**values: object) -> Measurement:
    return replace(COMPONENT, values=replace(COMPONENT.values, **values))  # type: ignore[arg-type]


class TestComponents:
    def test_a_whole_component_is_taken(self) -> None:
        (value,) = with_component(COMPONENT).reference_values
        assert (value.name, value.version, value.digests) == ("BL", "1.0", {"sha-256": DIGEST})
        assert value.signer_ids == (SIGNER,)
        assert value.environment.instance_id == UEID

    @pytest.mark.parametrize(
        ("algorithm", "value", "name"),
        [
            (1, DIGEST, "sha-256"),
            (7, sha384(b"").digest(), "sha-384"),
            (8, sha512(b"").digest(), "sha-512"),
            ("SHA256", DIGEST, "sha-256"),
        ],
    )
    def test_an_algorithm_may_be_a_number_or_a_name(
        self, algorithm: int | str, value: bytes, name: str
    ) -> None:
        found = with_component(changed(digests=(Digest(algorithm, value),)))
        assert found.reference_values[0].digests == {name: value}

    def test_optional_members_may_be_absent(self) -> None:
        (value,) = with_component(changed(version=None, name=None)).reference_values
        assert (value.name, value.version) == ("", "")

    @pytest.mark.parametrize(
        ("change", "place", "reason"),
        [
            ({"digests": ()}, "mval.digests", "missing"),
            ({"digests": (Digest("sha-256", b"x"),)}, "digests[0]", "1 octets; expected 32"),
            ({"digests": (Digest("md5", b"x"),)}, "digests[0]", "'md5' is not registered"),
            ({"digests": (Digest(9, bytes(28)),)}, "digests[0]", "expected one of 32, 48, 64"),
            ({"version": Version("1.0", 16384)}, "version", "version-scheme must not be there"),
            ({"crypto_keys": ()}, "cryptokeys", "0 entries; expected exactly one"),
            ({"crypto_keys": (Tag(560, SIGNER),) * 2}, "cryptokeys", "2 entries"),
            ({"crypto_keys": (Tag(560, bytes(20)),)}, "cryptokeys[0]", "has 32, 48 or 64"),
            ({"crypto_keys": (Tag(557, [1, SIGNER]),)}, "cryptokeys[0]", "tag 557"),
            ({"svn": Svn(1)}, "mval", "svn is no part of this profile"),
            ({"raw_value": RawValue(b"x")}, "mval", "raw-value is no part of this profile"),
            ({"extensions": {-1: 1}}, "mval", "member -1 is no part of this profile"),
        ],
    )
    def test_one_broken_rule_is_named_with_its_place(
        self, change: dict[str, object], place: str, reason: str
    ) -> None:
        with pytest.raises(DecodeError) as refusal:
            with_component(changed(**change))
        text = str(refusal.value)
        assert "tags[0].comid.triples.reference[0].measurements[0]." in text
        assert f"{place}: " in text
        assert reason in text

    @pytest.mark.parametrize(
        "key", ["psa.other", 1, None, Tag(37, bytes(16)), Tag(601, {5: SIGNER})]
    )
    def test_another_measurement_key_is_refused(self, key: object) -> None:
        with pytest.raises(DecodeError, match=r"mkey: .*expected 'psa.software-component'"):
            with_component(replace(COMPONENT, key=key))  # type: ignore[arg-type]

    def test_authorized_by_is_refused(self) -> None:
        with pytest.raises(DecodeError, match="authorized-by must not be there"):
            with_component(replace(COMPONENT, authorized_by=(Tag(560, SIGNER),)))


class TestEnvironments:
    @pytest.mark.parametrize(
        ("environment", "place", "reason"),
        [
            (EnvironmentMap(instance=Tag(550, UEID)), "class.class-id", "missing"),
            (
                EnvironmentMap(environment_class=EnvironmentClass(vendor="ACME")),
                "class.class-id",
                "missing",
            ),
            (
                replace(
                    ENVIRONMENT, environment_class=EnvironmentClass(class_id=Tag(560, bytes(31)))
                ),
                "class.class-id",
                "31 octets; an implementation id has 32",
            ),
            (
                replace(ENVIRONMENT, environment_class=EnvironmentClass(class_id=Tag(600, CLASS))),
                "class.class-id",
                "tag 600",
            ),
            (
                replace(ENVIRONMENT, instance=Tag(550, b"\x02" + bytes(32))),
                "instance",
                "33 octets of which the first is 01",
            ),
            (replace(ENVIRONMENT, instance=Tag(550, bytes([1]) * 32)), "instance", "33 octets"),
            (replace(ENVIRONMENT, group=Tag(560, b"x")), "group", "no Evidence names its group"),
            (
                EnvironmentMap(
                    environment_class=EnvironmentClass(class_id=Tag(560, CLASS), layer=0)
                ),
                "class.layer",
                "no Evidence names its layer",
            ),
            (
                EnvironmentMap(
                    environment_class=EnvironmentClass(class_id=Tag(560, CLASS), index=1)
                ),
                "class.index",
                "no Evidence names its index",
            ),
        ],
    )
    def test_one_broken_rule_is_named_with_its_place(
        self, environment: EnvironmentMap, place: str, reason: str
    ) -> None:
        for make in (
            lambda: with_component(COMPONENT, environment),
            lambda: with_key((key_tag(KEY),), environment),
        ):
            with pytest.raises(DecodeError) as refusal:
                make()
            assert f"environment.{place}: " in str(refusal.value)
            assert reason in str(refusal.value)

    def test_reference_values_of_a_class_need_no_instance(self) -> None:
        environment = replace(ENVIRONMENT, instance=None)
        assert with_component(COMPONENT, environment).reference_values
        with pytest.raises(DecodeError, match="instance: missing"):
            with_key((key_tag(KEY),), environment)


class TestKeys:
    def test_one_key_is_taken(self) -> None:
        (anchor,) = with_key((key_tag(KEY),)).trust_anchors
        assert anchor.verification_key().material == KEY

    @pytest.mark.parametrize(
        ("keys", "place", "reason"),
        [
            ((key_tag(KEY),) * 2, "keys", "2 keys; expected exactly one"),
            ((Tag(560, b"key id"),), "keys[0]", "tag 560 (bytes)"),
            ((Tag(557, [1, SIGNER]),), "keys[0]", "tag 557 (key thumbprint)"),
            ((Tag(562, b"\x30"),), "keys[0]", "tag 562 (DER certificate)"),
            ((Tag(558, {1: 4, -1: b"secret"}),), "keys[0]", "tag 558 (COSE_Key)"),
            ((Tag(554, "no base64!"),), "keys[0]", "not base64"),
            ((Tag(554, "AAAA"),), "keys[0]", "not a SubjectPublicKeyInfo"),
        ],
    )
    def test_one_broken_rule_is_named_with_its_place(
        self, keys: tuple[Tag, ...], place: str, reason: str
    ) -> None:
        with pytest.raises(DecodeError) as refusal:
            with_key(keys)
        assert f"attest-key[0].{place}: " in str(refusal.value)
        assert reason in str(refusal.value)

    @pytest.mark.parametrize("condition", [{"key": "k"}, {"authorized_by": (Tag(560, b"x"),)}])
    def test_a_key_under_conditions_is_refused(self, condition: dict[str, object]) -> None:
        # Ignoring the condition would make the key good where the Endorser did not say so.
        with pytest.raises(DecodeError, match="conditions: conditions on an attestation key"):
            with_key((key_tag(KEY),), **condition)


class TestCcaPlatform:
    @staticmethod
    def read(*measurements: Measurement) -> Endorsements:
        triple = MeasurementTriple(ENVIRONMENT, measurements)
        return endorsements_of(
            corim(Triples(reference=(triple,)), "tag:arm.com,2025:cca_platform#1.0.0"),
            source="test",
        )

    CONFIG = Measurement(
        key="cca.platform-config",
        values=MeasurementValues(raw_value=RawValue(b"\xcf\xcf", b"\xff\x00")),
    )

    def test_components_and_one_configuration_are_taken(self) -> None:
        component = replace(COMPONENT, key="cca.software-component")
        found = self.read(component, self.CONFIG).reference_values
        assert [value.key for value in found] == ["cca.software-component", "cca.platform-config"]
        assert (found[1].raw_value, found[1].raw_mask) == (b"\xcf\xcf", b"\xff\x00")

    def test_a_second_configuration_is_refused(self) -> None:
        with pytest.raises(DecodeError, match=r"measurements\[1\].mkey: a second"):
            self.read(self.CONFIG, self.CONFIG)

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            (MeasurementValues(raw_value=RawValue(b"ab", b"\xff")), "a mask of 1 octets"),
            (MeasurementValues(raw_value=Tag(999, b"x")), "expected a masked raw value"),
            (MeasurementValues(raw_value=RawValue(b"ab"), name="x"), "name is no part"),
            (MeasurementValues(digests=(Digest(1, DIGEST),)), "digests is no part"),
        ],
    )
    def test_another_configuration_is_refused(self, values: MeasurementValues, reason: str) -> None:
        with pytest.raises(DecodeError, match=reason):
            self.read(replace(self.CONFIG, values=values))

    def test_psa_components_are_not_cca_components(self) -> None:
        with pytest.raises(DecodeError, match=r"expected 'cca\.software-component'"):
            self.read(COMPONENT)


class TestCcaRealm:
    RIM = sha384(b"rim").digest()

    def read(self, change: dict[str, object] | None = None, *extra: Measurement) -> Endorsements:
        good = cca_realm_corim(corim_id="r", rim=self.RIM, rems=[self.RIM] * 4, rpv=bytes(64))
        comid = good.tags[0]
        assert isinstance(comid, Comid)
        (triple,) = comid.triples.reference
        triple = replace(triple, measurements=(*triple.measurements, *extra))
        triple = replace(triple, **(change or {}))  # type: ignore[arg-type]
        triples = replace(comid.triples, reference=(triple,))
        return endorsements_of(
            replace(good, tags=(replace(comid, triples=triples),)), source="test"
        )

    def test_a_whole_realm_is_taken(self) -> None:
        assert len(self.read().reference_values) == 6

    def test_the_rim_must_be_the_class_id(self) -> None:
        other = EnvironmentMap(environment_class=EnvironmentClass(class_id=Tag(560, bytes(48))))
        with pytest.raises(DecodeError, match="not the RIM that the environment names"):
            self.read({"environment": other})

    def test_a_realm_has_no_instance(self) -> None:
        named = EnvironmentMap(
            environment_class=EnvironmentClass(class_id=Tag(560, self.RIM)),
            instance=Tag(560, b"x"),
        )
        with pytest.raises(DecodeError, match="instance: realms have no instance id"):
            self.read({"environment": named})

    @pytest.mark.parametrize(
        ("measurement", "reason"),
        [
            (Measurement(key="cca.rem4", values=MeasurementValues(name="x")), "expected one of"),
            (Measurement(key=Tag(601, {1: "x"}), values=MeasurementValues(name="x")), "mkey"),
            (Measurement(key="cca.rem0", values=MeasurementValues(name="x")), "a second"),
        ],
    )
    def test_an_unknown_or_repeated_key_is_refused(
        self, measurement: Measurement, reason: str
    ) -> None:
        with pytest.raises(DecodeError, match=reason):
            self.read(None, measurement)

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            (MeasurementValues(raw_value=RawValue(bytes(65))), "65 octets; expected 1 to 64"),
            (MeasurementValues(raw_value=RawValue(b"")), "0 octets"),
            (MeasurementValues(raw_value=RawValue(b"x", b"x")), "a mask"),
            (MeasurementValues(digests=(Digest(1, DIGEST),)), "digests is no part"),
        ],
    )
    def test_another_personalization_value_is_refused(
        self, values: MeasurementValues, reason: str
    ) -> None:
        rim = Measurement(key="cca.rim", values=MeasurementValues(digests=(Digest(7, self.RIM),)))
        rpv = Measurement(key="cca.rpv", values=values)
        with pytest.raises(DecodeError, match=reason):
            self.read({"measurements": (rim, rpv)})

    def test_an_attestation_key_for_a_realm_is_refused(self) -> None:
        triples = Triples(attest_key=(KeyTriple(ENVIRONMENT, (key_tag(KEY),)),))
        with pytest.raises(DecodeError, match="its key is in the Evidence"):
            endorsements_of(corim(triples, "tag:arm.com,2025:cca_realm#1.0.0"), source="test")


class TestOlderProfiles:
    @pytest.mark.parametrize(
        ("profile", "key"),
        [
            ("http://arm.com/psa/iot/1", "psa.software-component"),
            ("tag:arm.com,2023:cca_platform#1.0.0", "cca.software-component"),
        ],
    )
    def test_components_described_in_their_key_are_taken(self, profile: str, key: str) -> None:
        environment = EnvironmentMap(environment_class=EnvironmentClass(class_id=Tag(600, CLASS)))
        measurement = Measurement(
            key=Tag(601, {1: "BL", 4: "1.0", 5: SIGNER}),
            values=MeasurementValues(digests=(Digest(1, DIGEST),)),
        )
        triple = MeasurementTriple(environment, (measurement,))
        found = endorsements_of(corim(Triples(reference=(triple,)), profile), source="test")
        (value,) = found.reference_values
        assert (value.key, value.name, value.version) == (key, "BL", "1.0")
        assert value.signer_ids == (SIGNER,)
        assert value.environment.class_id == CLASS

    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ({1: "BL"}, "signer-id"),
            ({5: b"short"}, "5 octets"),
            ({5: SIGNER, 9: 1}, "unknown key 9"),
            (b"x", "expected a map"),
        ],
    )
    def test_a_broken_key_is_refused(self, key: object, reason: str) -> None:
        measurement = Measurement(
            key=Tag(601, key), values=MeasurementValues(digests=(Digest(1, DIGEST),))
        )
        triple = MeasurementTriple(ENVIRONMENT, (measurement,))
        with pytest.raises(DecodeError, match=reason):
            endorsements_of(
                corim(Triples(reference=(triple,)), "http://arm.com/psa/iot/1"), source="test"
            )


def test_what_is_built_can_be_read_back() -> None:
    components = [Component(digest=DIGEST, signer_id=SIGNER, name="BL", version="1.0")]
    keys = [AttestKey(instance_id=UEID, key=VerificationKey(KEY))]
    built = psa_corim(corim_id="p", implementation_id=CLASS, components=components, keys=keys)
    found = endorsements_of(Corim.decode(built.encode()), source="test")
    assert (len(found.reference_values), len(found.trust_anchors)) == (1, 1)
    platform = cca_platform_corim(
        corim_id="p", implementation_id=CLASS, components=components, config=b"\xcf", keys=keys
    )
    values = endorsements_of(platform, source="test").reference_values
    assert (values[1].raw_value, values[1].raw_mask) == (b"\xcf", b"\xff")
