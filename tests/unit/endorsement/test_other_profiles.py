# SPDX-License-Identifier: Apache-2.0
"""The Parsec TPM and SEV-SNP profiles, each rule broken once."""

from __future__ import annotations

from hashlib import sha384

import pytest

from troth.endorsement.endorsements import Endorsements, endorsements_of
from troth.errors import DecodeError
from troth.formats.cbor import Tag
from troth.formats.corim import (
    Comid,
    Corim,
    Digest,
    EnvironmentClass,
    EnvironmentMap,
    Measurement,
    MeasurementTriple,
    MeasurementValues,
    Svn,
    Triples,
)

LAUNCH = sha384(b"launch").digest()
DIGESTS = MeasurementValues(digests=(Digest("sha-384", LAUNCH),))
CLASS = EnvironmentMap(environment_class=EnvironmentClass(class_id=Tag(37, bytes(16))))
CHIP = EnvironmentMap(
    environment_class=EnvironmentClass(class_id=Tag(111, b"\x2b")), instance=Tag(560, b"chip")
)


def read(profile: str, environment: EnvironmentMap, *measurements: Measurement) -> Endorsements:
    triple = MeasurementTriple(environment, measurements)
    tag = Comid(tag_id="t", triples=Triples(reference=(triple,)))
    return endorsements_of(Corim(corim_id="c", tags=(tag,), profile=profile), source="test")


class TestParsecTpm:
    PROFILE = "tag:github.com/parallaxsecond,2023-03-03:tpm"

    def test_pcrs_are_taken(self) -> None:
        pcrs = [Measurement(key=index, values=DIGESTS) for index in (0, 23)]
        (value,) = read(self.PROFILE, CLASS, *pcrs).reference_values
        assert value.registers == {0: {"sha-384": LAUNCH}, 23: {"sha-384": LAUNCH}}

    @pytest.mark.parametrize(
        ("measurements", "reason"),
        [
            ([Measurement(key=24, values=DIGESTS)], "24; expected a PCR index"),
            ([Measurement(key="0", values=DIGESTS)], "'0'; expected a PCR index"),
            ([Measurement(key=0, values=DIGESTS)] * 2, "PCR 0 for the second time"),
            (
                [Measurement(key=0, values=MeasurementValues(svn=Svn(1)))],
                "svn is no part of this profile",
            ),
        ],
    )
    def test_anything_else_is_refused(self, measurements: list[Measurement], reason: str) -> None:
        with pytest.raises(DecodeError, match=reason):
            read(self.PROFILE, CLASS, *measurements)

    def test_pcrs_of_no_class_are_refused(self) -> None:
        alone = EnvironmentMap(instance=Tag(560, b"ak"))
        with pytest.raises(DecodeError, match="class-id is missing"):
            read(self.PROFILE, alone, Measurement(key=0, values=DIGESTS))


class TestSevSnp:
    PROFILE = "tag:amd.com,2025:snp-corim-profile"
    MEASUREMENT = Measurement(key=641, values=DIGESTS)

    def test_fields_are_named_and_bound_to_launch_measurement_and_chip(self) -> None:
        svn = Measurement(key=1, values=MeasurementValues(svn=Svn(3, 553)))
        flags = Measurement(values=MeasurementValues(flags={3: False}))
        found = read(self.PROFILE, CHIP, self.MEASUREMENT, svn, flags).reference_values
        assert [value.key for value in found] == ["measurement", "guest_svn", ""]
        for value in found:
            assert value.environment.class_id == LAUNCH
            assert value.environment.instance_id == b"chip"

    @pytest.mark.parametrize(
        ("measurements", "reason"),
        [
            ([Measurement(key=1, values=MeasurementValues(svn=Svn(3)))], "0 launch measurements"),
            ([MEASUREMENT, MEASUREMENT], "2 launch measurements"),
            ([MEASUREMENT, Measurement(key=8, values=DIGESTS)], "'8' is no field of a report"),
            (
                [Measurement(key=641, values=MeasurementValues(digests=(Digest(1, bytes(32)),)))],
                "no sha-384",
            ),
        ],
    )
    def test_anything_else_is_refused(self, measurements: list[Measurement], reason: str) -> None:
        with pytest.raises(DecodeError, match=reason):
            read(self.PROFILE, CHIP, *measurements)
