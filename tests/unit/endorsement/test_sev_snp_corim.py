# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from support.vendor_evidence import NOW
from troth.endorsement.sev_snp_corim import sev_snp_corim
from troth.endorsement.store import EndorsementStore
from troth.errors import ConfigurationError, DecodeError
from troth.testing.sev_snp import SnpAuthority

MEASUREMENT = b"m" * 48
ARK = SnpAuthority().ark


def provisioned(**given: object) -> EndorsementStore:
    store = EndorsementStore()
    store.provision(sev_snp_corim(corim_id="maker", **given), now=NOW, source="test")
    return store


def test_values_are_found_by_the_launch_measurement() -> None:
    store = provisioned(
        measurement=MEASUREMENT,
        policy=0x30000,
        minimum_tcb=0xDB18000000000004,
        host_data=b"h" * 32,
        id_key_digest=b"k" * 48,
        vmpl=0,
    )
    values = store.snapshot(NOW).find("sev_snp", class_id=MEASUREMENT)
    assert {value.key for value in values} == {
        "measurement",
        "policy",
        "reported_tcb",
        "host_data",
        "id_key_digest",
        "vmpl",
    }
    by_key = {value.key: value for value in values}
    assert by_key["policy"].raw_value == (0x30000).to_bytes(8, "little")
    assert by_key["reported_tcb"].min_svn == 0xDB18000000000004
    assert by_key["measurement"].digests == {"sha-384": MEASUREMENT}
    assert store.snapshot(NOW).find("sev_snp", class_id=b"n" * 48) == ()


def test_values_for_one_chip_are_found_with_it_only() -> None:
    snapshot = provisioned(measurement=MEASUREMENT, chip_id=b"c" * 64).snapshot(NOW)
    assert snapshot.find("sev_snp", class_id=MEASUREMENT, instance_id=b"c" * 64)
    assert not snapshot.find("sev_snp", class_id=MEASUREMENT)
    assert not snapshot.find("sev_snp", class_id=MEASUREMENT, instance_id=b"d" * 64)


def test_roots_become_trust_anchors() -> None:
    store = provisioned(roots=[ARK])
    assert list(store.snapshot(NOW).certificates("sev_snp")) == [ARK]
    assert list(store.snapshot(NOW).certificates("nitro")) == []


def test_a_corim_without_anything_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="launch measurement or a root"):
        sev_snp_corim(corim_id="empty")


@pytest.mark.parametrize("given", [{"measurement": b"m" * 47}, {"id_key_digest": b"k" * 32}])
def test_a_digest_of_another_length_is_refused(given: dict[str, bytes]) -> None:
    with pytest.raises(DecodeError):
        sev_snp_corim(corim_id="bad", **{"measurement": MEASUREMENT, **given})
