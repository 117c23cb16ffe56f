# SPDX-License-Identifier: Apache-2.0
"""Quotes carry what was put in; what is changed is refused; what is behind is all that is behind."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from support.intel import enclave, trust_domain, verify_sgx, verify_tdx
from support.vendor_evidence import CHALLENGE
from troth.errors import DecodeError, VerificationError
from troth.evidence import sgx, tdx
from troth.evidence.evidence import NonceMatched
from troth.evidence.intel.tcb import (
    TcbInfo,
    TcbStatus,
    TcbVersions,
    assess,
    decode_qe_identity,
    decode_tcb_info,
)
from troth.testing.intel_authority import level, module_level

_TD_SIZES = {
    "mr_td": 48,
    "mr_config_id": 48,
    "mr_owner": 48,
    "mr_owner_config": 48,
    "rtmr0": 48,
    "rtmr1": 48,
    "rtmr2": 48,
    "rtmr3": 48,
    "xfam": 8,
    "td_attributes": 8,
    "mr_service_td": 48,
}
td_fields = st.fixed_dictionaries(
    {}, optional={name: st.binary(min_size=size, max_size=size) for name, size in _TD_SIZES.items()}
)
challenges = st.binary(min_size=64, max_size=64)
svns = st.integers(0, 4)
components = st.lists(svns, min_size=16, max_size=16).map(bytes)


@given(fields=td_fields, challenge=challenges, version=st.sampled_from(["4", "5", "5/1.0"]))
@settings(max_examples=60, deadline=None)
def test_a_trust_domains_quote_carries_what_was_put_in(
    fields: dict[str, bytes], challenge: bytes, version: str
) -> None:
    data = trust_domain(fields=fields, version=version).attest(challenge)
    report = tdx.SCHEME.decode(data).report
    assert report.report_data == challenge
    for name, value in fields.items():
        if name != "mr_service_td" or version == "5":
            assert getattr(report, name) == value
    verified = verify_tdx(data, challenge=challenge)
    assert verified.freshness == NonceMatched(challenge)
    json.dumps(verified.claims_sets[0].claims)


@given(product=st.integers(0, 65535), svn=st.integers(0, 65535), challenge=challenges)
@settings(max_examples=30, deadline=None)
def test_an_enclaves_quote_carries_what_was_put_in(
    product: int, svn: int, challenge: bytes
) -> None:
    fields = {"isv_prod_id": product.to_bytes(2, "little"), "isv_svn": svn.to_bytes(2, "little")}
    report = sgx.SCHEME.decode(enclave(fields=fields).attest(challenge)).report
    assert (report.isv_prod_id, report.isv_svn) == (product, svn)


_TDX, _SGX = trust_domain().attest(CHALLENGE), enclave().attest(CHALLENGE)


@given(data=st.data(), flip=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_a_change_before_the_certificates_is_refused(data: st.DataObject, flip: int) -> None:
    for quote, verify in ((_TDX, verify_tdx), (_SGX, verify_sgx)):
        at = data.draw(st.integers(0, quote.index(b"-----BEGIN") - 1))
        changed = bytearray(quote)
        changed[at] ^= flip
        try:
            verify(bytes(changed))
        except (VerificationError, DecodeError):
            continue
        raise AssertionError(at)


@given(at=st.integers(0, len(_TDX)), junk=st.binary(min_size=1, max_size=64))
@settings(max_examples=100, deadline=None)
def test_octets_that_are_put_in_change_nothing_that_was_signed(at: int, junk: bytes) -> None:
    """White space between certificates, and zeros at the end, are all that passes."""
    changed = _TDX[:at] + junk + _TDX[at:]
    try:
        verified = verify_tdx(changed)
    except (VerificationError, DecodeError):
        return
    assert verified.evidence.quote.signed == tdx.SCHEME.decode(_TDX).quote.signed
    assert not junk.strip(b"\0\r\n ")


_IDENTITY = decode_qe_identity(
    json.dumps(
        {
            "id": "TD_QE",
            "version": 2,
            "issueDate": "2026-11-20T00:00:00Z",
            "nextUpdate": "2026-12-20T00:00:00Z",
            "tcbEvaluationDataNumber": 18,
            "miscselect": "00",
            "miscselectMask": "00",
            "attributes": "00",
            "attributesMask": "00",
            "mrsigner": "00",
            "isvprodid": 2,
            "tcbLevels": [module_level(0)],
        }
    ),
    format="test",
)
statuses = st.sampled_from(["UpToDate", "SWHardeningNeeded", "OutOfDate", "Revoked"])
levels = st.lists(
    st.builds(
        lambda sgx_svns, pce, tdx_svns, status: level(sgx_svns, pce, tdx_svns, status=status),
        components,
        svns,
        components,
        statuses,
    ),
    min_size=1,
    max_size=5,
)


def _info(own: list[dict[str, Any]]) -> TcbInfo:
    value = {
        "id": "TDX",
        "version": 3,
        "issueDate": "2026-11-20T00:00:00Z",
        "nextUpdate": "2026-12-20T00:00:00Z",
        "fmspc": "90c06f000000",
        "tcbEvaluationDataNumber": 18,
        "tcbLevels": own,
    }
    return decode_tcb_info(json.dumps(value), format="test")


@given(own=levels, cpu=components, pce=svns, module=components)
def test_whoever_raises_what_is_named_meets_a_level_that_is_as_good_as_any(
    own: list[dict[str, Any]], cpu: bytes, pce: int, module: bytes
) -> None:
    info = _info(own)
    found = assess(info, _IDENTITY, TcbVersions(sgx=cpu, pce=pce, tdx=module))
    best = min(TcbStatus.of(each["tcbStatus"]).rank for each in own)
    assert found.status.rank >= best
    assert all(each.actual < each.needed for each in found.shortfalls)
    if not found.shortfalls:
        return
    raised_cpu, raised_module = bytearray(cpu), bytearray(module)
    for each in found.shortfalls:
        if each.component == "pcesvn":
            pce = each.needed
            continue
        name, _, index = each.component.rstrip("]").partition("[")
        part = raised_cpu if name == "sgxtcbcomponents" else raised_module
        part[int(index)] = each.needed
    better = TcbVersions(sgx=bytes(raised_cpu), pce=pce, tdx=bytes(raised_module))
    reached = [
        each
        for each in info.levels
        if each.status.rank == best
        and all(have >= want.svn for have, want in zip(better.sgx, each.tcb.sgx, strict=True))
        and all(have >= want.svn for have, want in zip(better.tdx, each.tcb.tdx, strict=True))
        and better.pce >= each.tcb.pce_svn
    ]
    assert reached
