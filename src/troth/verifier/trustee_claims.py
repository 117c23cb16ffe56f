# SPDX-License-Identifier: Apache-2.0
"""The claims of SGX and TDX under the names and in the shape that Trustee's policies know.

Event logs are not among them: a rule that asks for events is not met.

Source: Trustee, deps/verifier, claims of sgx, tdx and intel_dcap (2026-08).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from troth.evidence.intel.quote import INTEL_QE_VENDOR

__all__ = ["TRUSTEE_SHAPES"]

_TD_BODY: Final = {
    "tee_tcb_svn": "tcb_svn",
    "mr_signer_seam": "mrsigner_seam",
    "mr_service_td": "mr_servicetd",
    **{f"rtmr{index}": f"rtmr_{index}" for index in range(4)},
    **{
        name: name
        for name in (
            "mr_seam",
            "seam_attributes",
            "td_attributes",
            "xfam",
            "mr_td",
            "mr_config_id",
            "mr_owner",
            "mr_owner_config",
            "report_data",
            "tee_tcb_svn2",
        )
    },
}
_TD_FLAGS: Final = {
    "debug": "debug",
    "key_locker": "key_locker",
    "perfmon": "perfmon",
    "pks": "protection_keys",
    "sept_ve_disable": "septve_disable",
}
_ENCLAVE_BODY: Final = (
    "cpu_svn",
    "misc_select",
    "isv_ext_prod_id",
    "mr_enclave",
    "mr_signer",
    "config_id",
    "isv_family_id",
    "report_data",
)
_ENCLAVE_NUMBERS: Final = ("isv_prod_id", "isv_svn", "config_svn")


def _tdx(claims: Mapping[str, object]) -> dict[str, object]:
    flags = claims.get("td_attribute_flags")
    named = flags if isinstance(flags, Mapping) else {}
    body = {theirs: claims[ours] for ours, theirs in _TD_BODY.items() if ours in claims}
    return {
        "quote": {
            "header": {
                "version": _little_endian(claims.get("quote_version")),
                "att_key_type": "0200",
                "tee_type": "81000000",
                "vendor_id": INTEL_QE_VENDOR.hex(),
            },
            "body": body,
        },
        "td_attributes": {theirs: named.get(ours) for ours, theirs in _TD_FLAGS.items()},
        **_platform(claims, init_data="mr_config_id"),
    }


def _sgx(claims: Mapping[str, object]) -> dict[str, object]:
    attributes = str(claims.get("attributes", ""))
    body = {name: claims[name] for name in _ENCLAVE_BODY if name in claims}
    body |= {name: _little_endian(claims.get(name)) for name in _ENCLAVE_NUMBERS}
    body |= {"attributes.flags": attributes[:16], "attributes.xfrm": attributes[16:]}
    return {
        "header": {
            "version": _little_endian(claims.get("quote_version")),
            "att_key_type": "0200",
            "att_key_data_0": "00000000",
            "vendor_id": INTEL_QE_VENDOR.hex(),
        },
        "body": body,
        **_platform(claims, init_data="config_id"),
    }


def _platform(claims: Mapping[str, object], *, init_data: str) -> dict[str, object]:
    found: dict[str, object] = {
        "init_data": claims.get(init_data),
        "tcb_status": claims.get("tcb_status"),
        "tcb_date": claims.get("tcb_date"),
        "advisory_ids": claims.get("tcb_advisories"),
        "collateral_expiration_status": "1" if claims.get("collateral_stale") else "0",
    }
    if "report_data" in claims:
        found["report_data"] = claims["report_data"]
    return found


def _little_endian(value: object) -> str:
    return value.to_bytes(2, "little").hex() if isinstance(value, int) else ""


TRUSTEE_SHAPES: Final[Mapping[str, Callable[[Mapping[str, object]], dict[str, object]]]] = {
    "sgx": _sgx,
    "tdx": _tdx,
}
"""Scheme to what makes Trustee's form of its claims."""
