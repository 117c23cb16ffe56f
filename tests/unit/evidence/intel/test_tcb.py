# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from support.intel import OUT_OF_DATE, UP_TO_DATE
from support.vectors import vectors
from troth.errors import DecodeError
from troth.evidence.intel.tcb import (
    Assessment,
    QeIdentity,
    TcbInfo,
    TcbStatus,
    TcbVersions,
    assess,
    decode_qe_identity,
    decode_tcb_info,
)
from troth.testing.intel_authority import level, module_level

GOOD_SGX = bytes([3, 3, 2, 2, 4, 1, 0, 5, *bytes(8)])
GOOD_TDX = bytes([6, 1, 3, *bytes(13)])
DATES = {"issueDate": "2026-11-20T00:00:00Z", "nextUpdate": "2026-12-20T00:00:00Z"}


def tcb_info(
    *levels: Mapping[str, Any], tee: str = "TDX", modules: Mapping[str, Any] | None = None
) -> TcbInfo:
    value = {
        "id": tee,
        "version": 3,
        **DATES,
        "fmspc": "90c06f000000",
        "tcbEvaluationDataNumber": 18,
        "tcbLevels": levels,
        "tdxModuleIdentities": [
            {"id": name, "tcbLevels": own} for name, own in (modules or {}).items()
        ],
    }
    return decode_tcb_info(json.dumps(value), format="test")


def identity(*levels: Mapping[str, Any]) -> QeIdentity:
    value = {
        "id": "TD_QE",
        "version": 2,
        **DATES,
        "tcbEvaluationDataNumber": 18,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "00",
        "attributesMask": "00",
        "mrsigner": "00",
        "isvprodid": 2,
        "tcbLevels": levels or (module_level(4),),
    }
    return decode_qe_identity(json.dumps(value), format="test")


def assessed(info: TcbInfo, of: QeIdentity | None = None, **changes: Any) -> Assessment:
    given = {"sgx": GOOD_SGX, "pce": 13, "tdx": GOOD_TDX, "tdx_now": GOOD_TDX, "qe": 6}
    return assess(info, of or identity(), TcbVersions(**{**given, **changes}))


def short(found: Assessment) -> list[tuple[str, int, int]]:
    return [(each.component, each.actual, each.needed) for each in found.shortfalls]


INFO = tcb_info(OUT_OF_DATE, UP_TO_DATE)


def test_a_platform_with_everything_is_up_to_date() -> None:
    found = assessed(INFO)
    assert found.status is TcbStatus.UP_TO_DATE
    assert found.shortfalls == ()
    assert found.advisories == ()


@pytest.mark.parametrize("index", [index for index, svn in enumerate(GOOD_SGX[:8]) if svn])
def test_the_component_that_is_behind_is_named(index: int) -> None:
    behind = bytearray(GOOD_SGX)
    behind[index] -= 1
    found = assessed(INFO, sgx=bytes(behind))
    assert found.status is not TcbStatus.UP_TO_DATE
    assert (f"sgxtcbcomponents[{index}]", behind[index], GOOD_SGX[index]) in short(found)


def test_all_that_is_behind_is_named_at_once() -> None:
    found = assessed(
        INFO, sgx=bytes([2, 2, *GOOD_SGX[2:]]), pce=11, tdx=bytes([6, 1, 2, *bytes(13)])
    )
    assert short(found) == [
        ("sgxtcbcomponents[0]", 2, 3),
        ("sgxtcbcomponents[1]", 2, 3),
        ("pcesvn", 11, 13),
        ("tdxtcbcomponents[2]", 2, 3),
    ]
    assert found.shortfalls[0].description == "BIOS: Early Microcode Update"
    assert found.status is TcbStatus.BELOW_EVERY_LEVEL


def test_the_order_of_levels_in_the_text_does_not_matter() -> None:
    for levels in ((UP_TO_DATE, OUT_OF_DATE), (OUT_OF_DATE, UP_TO_DATE)):
        assert assessed(tcb_info(*levels)).status is TcbStatus.UP_TO_DATE


def test_an_older_level_brings_its_advisories() -> None:
    found = assessed(INFO, sgx=bytes([2, *GOOD_SGX[1:]]))
    assert found.status is TcbStatus.OUT_OF_DATE
    assert found.advisories == ("INTEL-SA-01036",)
    assert found.date == "2026-06-01T00:00:00Z"


def test_the_nearest_of_several_good_levels_is_compared_with() -> None:
    far = level((9, 9, 9, 9), 99, (9, 9, 9))
    found = assessed(tcb_info(far, UP_TO_DATE), sgx=bytes([2, *GOOD_SGX[1:]]))
    assert short(found) == [("sgxtcbcomponents[0]", 2, 3)]


def test_where_no_level_is_up_to_date_the_best_is_compared_with() -> None:
    best = level((3, 3), 13, (5,), status="SWHardeningNeeded")
    worse = level((3, 2), 13, (5,), status="ConfigurationAndSWHardeningNeeded")
    found = assessed(tcb_info(best, worse), sgx=bytes([3, 2, *GOOD_SGX[2:]]))
    assert found.status is TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED
    assert short(found) == [("sgxtcbcomponents[1]", 2, 3)]
    assert "SWHardeningNeeded level" in found.shortfalls[0].level


@pytest.mark.parametrize(
    ("module", "status", "needed"),
    [
        (6, TcbStatus.UP_TO_DATE, []),
        (5, TcbStatus.OUT_OF_DATE, [("tdxModule.isvsvn", 5, 6)]),
        (3, TcbStatus.BELOW_EVERY_LEVEL, [("tdxModule.isvsvn", 3, 6)]),
    ],
)
def test_a_module_has_levels_of_its_own(
    module: int, status: TcbStatus, needed: list[tuple[str, int, int]]
) -> None:
    modules = {"TDX_01": [module_level(4, status="OutOfDate"), module_level(6)]}
    low = level((3, 3), 13, (0,))
    found = assessed(tcb_info(low, modules=modules), tdx=bytes([module, 1, 3, *bytes(13)]))
    assert (found.status, short(found)) == (status, needed)


def test_a_module_of_another_major_version_is_not_compared_with_this_one() -> None:
    modules = {"TDX_03": [module_level(9)]}
    assert assessed(tcb_info(UP_TO_DATE, modules=modules)).status is TcbStatus.UP_TO_DATE


def test_a_quoting_enclave_has_levels_too() -> None:
    qe = identity(module_level(8), module_level(5, status="OutOfDate"))
    found = assessed(INFO, qe, qe=6)
    assert (found.status, short(found)) == (TcbStatus.OUT_OF_DATE, [("qe.isvsvn", 6, 8)])
    assert assessed(INFO, qe, qe=8).status is TcbStatus.UP_TO_DATE


@pytest.mark.parametrize(
    ("now", "helps"),
    [(GOOD_TDX, True), (bytes([6, 1, 2, *bytes(13)]), False), (b"", False)],
)
def test_it_is_said_where_a_new_launch_helps(now: bytes, *, helps: bool) -> None:
    found = assessed(INFO, tdx=bytes([6, 1, 2, *bytes(13)]), tdx_now=now)
    assert found.relaunch_helps is helps


def test_words_that_are_not_known_count_as_the_worst() -> None:
    assert TcbStatus.of("Splendid") is TcbStatus.UNRECOGNISED
    assert TcbStatus.UNRECOGNISED.rank == max(each.rank for each in TcbStatus)
    assert assessed(tcb_info({**UP_TO_DATE, "tcbStatus": "Splendid"})).status.rank > 8


@pytest.mark.parametrize(
    "change",
    [
        {"tcbLevels": 1},
        {"issueDate": "yesterday"},
        {"issueDate": "2026-11-20T00:00:00"},
        {"tcbLevels": [level((1,), 1)]},
        {"tcbEvaluationDataNumber": "x"},
    ],
)
def test_tcb_info_of_another_form_is_refused(change: dict[str, Any]) -> None:
    text = (vectors("tdx") / "go-tdx-guest" / "sample_tcbInfo_response").read_text()
    value = json.loads(text)["tcbInfo"]
    decode_tcb_info(json.dumps(value), format="test")
    with pytest.raises(DecodeError):
        decode_tcb_info(json.dumps({**value, **change}), format="test")


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"id": "QE"}', '"\ud800"'])
def test_an_identity_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_qe_identity(text, format="test")
