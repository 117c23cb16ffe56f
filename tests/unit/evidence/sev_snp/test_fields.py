# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from troth.evidence.sev_snp.fields import (
    GuestPolicy,
    PlatformInfo,
    TcbVersion,
    product_of_cpuid,
)

LEGACY = {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}
TURIN = {"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 200}


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (16, "policy_smt_allowed"),
        (18, "policy_migrate_ma"),
        (19, "policy_debug_allowed"),
        (20, "policy_single_socket"),
        (21, "policy_cxl_allowed"),
        (22, "policy_mem_aes_256_xts"),
        (23, "policy_rapl_disabled"),
        (24, "policy_ciphertext_hiding"),
        (25, "policy_page_swap_disabled"),
    ],
)
def test_each_bit_of_the_policy_is_one_claim(bit: int, name: str) -> None:
    without = GuestPolicy(1 << 17).to_json()
    with_it = GuestPolicy(1 << 17 | 1 << bit).to_json()
    assert {key for key in without if without[key] != with_it[key]} == {name, "policy"}
    assert with_it[name] is True


def test_the_policy_names_the_lowest_abi_version() -> None:
    policy = GuestPolicy(0x3371F)
    assert (policy.abi_major, policy.abi_minor) == (0x37, 0x1F)


@pytest.mark.parametrize(
    ("value", "unknown"),
    [(0x30000, 0), (0x10000, 1 << 17), (0x30000 | 1 << 26, 1 << 26), (0x30000 | 1 << 63, 1 << 63)],
)
def test_bits_that_the_specification_reserves_are_told(value: int, unknown: int) -> None:
    assert GuestPolicy(value).unknown_bits == unknown


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (0, "platform_smt_enabled"),
        (1, "platform_tsme_enabled"),
        (2, "platform_ecc_enabled"),
        (3, "platform_rapl_disabled"),
        (4, "platform_ciphertext_hiding"),
        (5, "platform_alias_check_complete"),
        (7, "platform_tio_enabled"),
    ],
)
def test_each_bit_of_the_platform_info_is_one_claim(bit: int, name: str) -> None:
    without, with_it = PlatformInfo(0).to_json(), PlatformInfo(1 << bit).to_json()
    assert {key for key in without if without[key] != with_it[key]} == {name, "platform_info"}


def test_the_parts_of_a_tcb_version_are_where_the_generation_has_them() -> None:
    assert TcbVersion(0xDB18000000000004, turin=False).parts == LEGACY
    assert TcbVersion(0xC800000004030201, turin=True).parts == TURIN


@pytest.mark.parametrize(("parts", "turin"), [(LEGACY, False), (TURIN, True)])
def test_a_tcb_version_is_made_of_its_parts(parts: dict[str, int], turin: bool) -> None:  # noqa: FBT001
    assert TcbVersion.of_parts(parts, turin=turin).parts == parts


def test_a_newer_microcode_does_not_make_up_for_an_older_boot_loader() -> None:
    ours = TcbVersion.of_parts({**LEGACY, "bootloader": 3, "microcode": 255}, turin=False)
    lowest = TcbVersion.of_parts(LEGACY, turin=False)
    assert ours.value > lowest.value
    assert ours.behind(lowest) == {"bootloader": (3, 4)}
    assert lowest.behind(lowest) == {}


def test_bits_outside_the_parts_are_told() -> None:
    assert TcbVersion(0xDB18000000000004, turin=False).reserved_bits == 0
    assert TcbVersion(0xDB18000000010004, turin=False).reserved_bits == 0x10000


@pytest.mark.parametrize(
    ("family", "model", "product"),
    [
        (0x19, 0x01, "Milan"),
        (0x19, 0x0F, "Milan"),
        (0x19, 0x10, "Genoa"),
        (0x19, 0x11, "Genoa"),
        (0x19, 0xA0, "Genoa"),
        (0x19, 0x20, ""),
        (0x1A, 0x02, "Turin"),
        (0x1A, 0x11, "Turin"),
        (0x1A, 0x50, ""),
        (0x17, 0x01, ""),
    ],
)
def test_the_product_follows_from_family_and_model(family: int, model: int, product: str) -> None:
    assert product_of_cpuid(family, model) == product
