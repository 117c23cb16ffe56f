# SPDX-License-Identifier: Apache-2.0
"""The published CoRIMs: the good ones are taken, the bad ones refused at the right member."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.vectors import vectors
from troth.endorsement.endorsements import Endorsements, endorsements_of
from troth.errors import DecodeError, UnsupportedError
from troth.formats.corim import Corim

ACCEPTED = [
    # folder, file, scheme, values, anchors
    ("psa", "veraison-services/corim-psa-valid.cbor", "psa", 3, 2),
    ("corim", "psa-valid.cbor", "psa", 1, 1),
    ("cca", "veraison-services/corim-cca-platform-valid.cbor", "cca", 5, 1),
    ("corim", "cca-platform-valid.cbor", "cca", 2, 1),
    ("cca", "veraison-services/corim-cca-realm-valid.cbor", "cca", 6, 0),
    ("corim", "cca-realm-valid.cbor", "cca", 6, 0),
    ("corim", "corim-sevsnp-valid.cbor", "sev_snp", 18, 1),
    ("corim", "corim-parsec-tpm-valid.cbor", "tpm2", 1, 1),
    ("tpm", "veraison-services/corim-enacttrust-valid.cbor", "tpm2", 1, 1),
]

REFUSED = [
    # folder, file, place, reason
    ("psa", "corim-psa-bad-class", "attest-key[0].environment.class.class-id", "tag 37 (UUID)"),
    ("psa", "corim-psa-bad-instance", "attest-key[0].environment.instance", "tag 37 (UUID)"),
    ("psa", "corim-psa-bad-refval-mkey", "reference[0].measurements[1].mkey", "6; expected"),
    ("psa", "corim-psa-bad-refval-mval", "reference[0].measurements[0].mval.digests", "missing"),
    ("psa", "corim-psa-bad-ta-cert", "attest-key[0].keys[0]", "tag 555 (PEM certificate)"),
    ("psa", "corim-psa-bad-ta-no-instance", "attest-key[0].environment.instance", "missing"),
    ("cca", "corim-cca-platform-bad-refval-mkey", "measurements[0].mkey", "7; expected"),
    ("cca", "corim-cca-platform-bad-refval-no-digests", "mval.digests", "missing"),
    ("cca", "corim-cca-platform-bad-ta-cert", "attest-key[0].keys[0]", "tag 555"),
    ("cca", "corim-cca-platform-bad-no-class", "environment.class.class-id", "missing"),
    ("cca", "corim-cca-realm-bad-no-rim", "reference[0].measurements", "'cca.rim' is missing"),
    ("cca", "corim-cca-realm-bad-no-instance", "environment.class.class-id", "missing"),
    ("corim", "cca-platform-invalid-digests", "mval.digests[0]", "a sha-256 digest of 31 octets"),
    ("corim", "cca-platform-invalid-impl-id", "environment.class.class-id", "30 octets"),
    ("corim", "cca-realm-invalid-missing-rim", "measurements", "'cca.rim' is missing"),
    ("corim", "cca-realm-invalid-rim-size", "environment.class.class-id", "16 octets"),
]

UNKNOWN_PROFILE = [
    ("corim", "unsigned-example-corim.cbor", "http://example.com/example-profile"),
]


def read(path: Path) -> Endorsements:
    return endorsements_of(Corim.decode(path.read_bytes()), source=path.name)


@pytest.mark.parametrize(("folder", "file", "scheme", "values", "anchors"), ACCEPTED)
def test_a_valid_corim_is_taken(
    folder: str, file: str, scheme: str, values: int, anchors: int
) -> None:
    found = read(vectors(folder) / file)
    assert found.scheme == scheme
    assert (len(found.reference_values), len(found.trust_anchors)) == (values, anchors)
    identifiers = [value.id for value in found.reference_values]
    identifiers += [anchor.id for anchor in found.trust_anchors]
    assert len(set(identifiers)) == values + anchors
    assert all(identifier.startswith(f"{found.id}/") for identifier in identifiers)


@pytest.mark.parametrize(("folder", "name", "place", "reason"), REFUSED)
def test_a_bad_corim_is_refused_with_member_and_reason(
    folder: str, name: str, place: str, reason: str
) -> None:
    base = vectors(folder)
    path = base / f"{name}.cbor"
    if folder != "corim":
        path = base / "veraison-services" / f"{name}.cbor"
    with pytest.raises(DecodeError) as refusal:
        read(path)
    assert f"{place}: {reason}" in str(refusal.value)
    assert path.name in str(refusal.value)


@pytest.mark.parametrize(("folder", "file", "profile"), UNKNOWN_PROFILE)
def test_an_unknown_profile_rejects_the_whole_corim_and_names_itself(
    folder: str, file: str, profile: str
) -> None:
    with pytest.raises(UnsupportedError, match="whole CoRIM is rejected") as refusal:
        read(vectors(folder) / file)
    assert profile in str(refusal.value)
    assert "Known profiles" in refusal.value.remedy


@pytest.mark.parametrize(
    "file", ["no-profile.cbor", "corim-1.cbor", "corim-2.cbor", "unsigned-good-corim.cbor"]
)
def test_a_corim_without_a_profile_speaks_for_no_scheme(file: str) -> None:
    with pytest.raises(UnsupportedError, match="does not say for which scheme it speaks"):
        read(vectors("corim") / file)


def test_the_psa_example_says_what_its_source_says() -> None:
    found = read(vectors("psa") / "veraison-services/corim-psa-valid.cbor")
    assert [value.name for value in found.reference_values] == ["BL", "PRoT", "ARoT"]
    first = found.reference_values[0]
    assert first.key == "psa.software-component"
    assert first.environment.class_id == b"acme-implementation-id-000000001"
    assert first.digests["sha-256"].hex().startswith("87428fc522803d31")
    assert [signer.hex()[:8] for signer in first.signer_ids] == ["5378796307535df3"[:8]]
    assert len({value.state for value in found.reference_values}) == 1
    named = [anchor.environment for anchor in found.trust_anchors]
    assert [each.instance_id.hex()[:8] for each in named] == ["01ceebae", "014ca3e4"]
    assert named[1].vendor == "ACME"
    assert named[1].model == "RoadRunner"


def test_the_cca_platform_configuration_comes_with_its_mask() -> None:
    found = read(vectors("cca") / "veraison-services/corim-cca-platform-valid.cbor")
    config = found.reference_values[-1]
    assert config.key == "cca.platform-config"
    assert (config.raw_value, config.raw_mask) == (b"\x01\x02\x03", b"\x01\x02\x03")


def test_a_realm_is_found_by_its_rim() -> None:
    found = read(vectors("cca") / "veraison-services/corim-cca-realm-valid.cbor")
    keys = [value.key for value in found.reference_values]
    assert keys == ["cca.rim", "cca.rem0", "cca.rem1", "cca.rem2", "cca.rem3", "cca.rpv"]
    assert {value.environment.class_id for value in found.reference_values} == {b"C" * 64}
    assert found.reference_values[0].digests == {"sha-512": b"C" * 64}
    assert found.reference_values[5].raw_value == b"ADAD" * 16


def test_a_sev_snp_vm_is_found_by_its_launch_measurement() -> None:
    found = read(vectors("corim") / "corim-sevsnp-valid.cbor")
    values = {value.key: value for value in found.reference_values}
    measurement = values["measurement"].digests["sha-384"]
    environments = {(v.environment.class_id, v.environment.instance_id) for v in values.values()}
    assert environments == {(measurement, b"")}
    assert values["guest_svn"].min_svn == 0
    assert values["reported_tcb"].svn == 6059311823650291722
    assert values["policy"].raw_value == bytes.fromhex("0000000000030000")
    assert values["current_version"].version == "1.55.8"
    (root,) = found.trust_anchors
    assert root.environment.model == "ARK-Genoa"
    assert "ARK-Genoa" in root.x509_certificate().subject.rfc4514_string()


def test_the_pcrs_of_one_triple_are_one_state() -> None:
    found = read(vectors("corim") / "corim-parsec-tpm-valid.cbor")
    (value,) = found.reference_values
    assert set(value.registers) == {0, 1, 2}
    assert set(value.registers[0]) == {"sha-256", "sha-384"}
    (anchor,) = found.trust_anchors
    assert anchor.environment.class_id == value.environment.class_id
    assert anchor.environment.instance_id.hex().startswith("0188855459")
