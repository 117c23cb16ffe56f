# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from troth.errors import DecodeError, LimitExceededError
from troth.evidence.tsm_report import TsmReport, decode_tsm_report
from troth.formats import cbor


@pytest.mark.parametrize("auxblob", [b"", b"certificates"])
def test_what_is_encoded_is_decoded(auxblob: bytes) -> None:
    report = TsmReport(provider="arm_cca_guest", outblob=b"token", auxblob=auxblob)
    assert decode_tsm_report(report.to_cbor()) == report


def test_the_kernels_line_feed_is_no_part_of_the_name() -> None:
    encoded = cbor.encode({"provider": "tdx_guest\n", "outblob": b"quote"})
    assert decode_tsm_report(encoded).provider == "tdx_guest"


@pytest.mark.parametrize(
    "data",
    [
        cbor.encode({"provider": "x", "outblob": b"y"}),
        cbor.encode({"auxblob": b"x", "outblob": b"y", "provider": "z"}),
        b'{"provider": "x"}',
        b' {\n "outblob" : ""}',
    ],
)
def test_one_is_recognised_by_its_first_member(data: bytes) -> None:
    assert TsmReport.recognises(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xa1", b"{}", b'{"claims": 1}', b'{"outblob"}', cbor.encode({"a": 1, "outblob": 2})],
)
def test_other_maps_and_objects_are_not_recognised(data: bytes) -> None:
    assert not TsmReport.recognises(data)


def test_the_size_is_limited() -> None:
    with pytest.raises(LimitExceededError):
        decode_tsm_report(cbor.encode({"provider": "x", "outblob": bytes(65_536)}))


@pytest.mark.parametrize("data", [b"", b"{", b"\xa0", b"\xff", b"[]", b'{"provider": "x"}'])
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_tsm_report(data)
