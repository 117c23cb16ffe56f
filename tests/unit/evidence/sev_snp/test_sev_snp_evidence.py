# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json

import pytest

from support.vendor_evidence import CHALLENGE
from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.evidence.registry import by_media_type, detect
from troth.evidence.sev_snp import SCHEME
from troth.evidence.sev_snp.evidence import MAX_EVIDENCE_BYTES, REPORT_MEDIA_TYPE
from troth.evidence.tsm_report import TSM_REPORT_CBOR, TSM_REPORT_JSON, TsmReport
from troth.formats import cbor
from troth.testing.sev_snp import SimulatedSnpGuest

GUEST = SimulatedSnpGuest()
REPORT, TABLE = GUEST.report(CHALLENGE), GUEST.table()


def as_json(**changes: object) -> bytes:
    members = {
        "provider": "sev_guest\n",
        "outblob": base64.urlsafe_b64encode(REPORT).decode().rstrip("="),
        "auxblob": base64.urlsafe_b64encode(TABLE).decode().rstrip("="),
    }
    return json.dumps(members | changes).encode()


FORMS = {
    "report": REPORT,
    "extended report": REPORT + TABLE,
    "TSM report in CBOR": TsmReport(provider="sev_guest", outblob=REPORT, auxblob=TABLE).to_cbor(),
    "TSM report in JSON": as_json(),
}


@pytest.mark.parametrize("name", FORMS)
def test_each_form_is_recognised_and_holds_the_same_report(name: str) -> None:
    assert detect(FORMS[name]) == "sev_snp"
    evidence = SCHEME.decode(FORMS[name])
    assert evidence.report_bytes == REPORT
    assert evidence.raw == FORMS[name]
    expected = set() if name == "report" else {"VCEK", "ASK", "ARK"}
    assert set(evidence.certificates) == expected


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("report", REPORT_MEDIA_TYPE),
        ("extended report", REPORT_MEDIA_TYPE),
        ("TSM report in CBOR", TSM_REPORT_CBOR),
        ("TSM report in JSON", TSM_REPORT_JSON),
        ("TSM report in JSON", "Application/Vnd.Veraison.TSM-Report+JSON"),
    ],
)
def test_each_media_type_leads_to_the_scheme_and_decodes(name: str, media_type: str) -> None:
    assert by_media_type(media_type) == "sev_snp"
    evidence = SCHEME.decode(FORMS[name], media_type=media_type)
    assert evidence.media_type == media_type
    assert evidence.report_bytes == REPORT


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("report", TSM_REPORT_CBOR),
        ("TSM report in CBOR", REPORT_MEDIA_TYPE),
        ("TSM report in CBOR", TSM_REPORT_JSON),
        ("TSM report in JSON", TSM_REPORT_CBOR),
    ],
)
def test_a_form_under_another_forms_media_type_is_refused(name: str, media_type: str) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(FORMS[name], media_type=media_type)


def test_a_tsm_report_of_another_kind_of_vm_says_where_it_belongs() -> None:
    other = TsmReport(provider="tdx_guest", outblob=REPORT).to_cbor()
    with pytest.raises(UnsupportedError, match="by 'tdx_guest'; expected sev_guest") as caught:
        SCHEME.decode(other)
    assert "its own scheme" in caught.value.remedy


def test_what_a_service_in_the_vm_vouches_for_is_not_taken_for_the_vm() -> None:
    with pytest.raises(UnsupportedError, match="SVSM"):
        SCHEME.decode(as_json(service_provider="svsm", manifestblob="AAAA"))


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": ""},
        {"provider": 1},
        {"outblob": ""},
        {"outblob": None},
        {"outblob": "not base64!"},
        {"outblob": "A"},
        {"outblob": ["AAAA"]},
        {"auxblob": "AAAB"},
    ],
)
def test_a_member_of_another_form_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(as_json(**changes))


def test_standard_base64_with_padding_is_taken_as_well() -> None:
    data = as_json(outblob=base64.b64encode(REPORT).decode())
    assert SCHEME.decode(data).report_bytes == REPORT


@pytest.mark.parametrize("value", [[1], {1: 2}, {"provider": "sev_guest"}, "text"])
def test_cbor_that_is_no_tsm_report_is_refused(value: object) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(cbor.encode(value), media_type=TSM_REPORT_CBOR)


@pytest.mark.parametrize("size", range(0, 1184, 97))
def test_a_truncated_report_is_refused(size: int) -> None:
    with pytest.raises(DecodeError):
        SCHEME.decode(REPORT[:size])


def test_a_truncated_table_is_refused() -> None:
    for size in (1, 23, 24, 80, len(TABLE) - 1):
        with pytest.raises(DecodeError):
            SCHEME.decode(REPORT + TABLE[:size])


def test_the_size_is_limited() -> None:
    assert SCHEME.decode(REPORT + bytes(MAX_EVIDENCE_BYTES - len(REPORT)))
    with pytest.raises(LimitExceededError, match="MAX_EVIDENCE_BYTES"):
        SCHEME.decode(REPORT + bytes(MAX_EVIDENCE_BYTES - len(REPORT) + 1))
