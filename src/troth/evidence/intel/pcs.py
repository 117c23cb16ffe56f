# SPDX-License-Identifier: Apache-2.0
"""What Intel's Provisioning Certification Service (PCS), or a cache of it (PCCS), would be asked for.

Nobody is asked here. What is wanted comes from a `CollateralError`, which is raised only for Evidence
whose own signatures lead to a trust anchor: a stranger cannot make us ask for what he likes.

Source: Intel PCS API version 4; PCCS API for the root's revocation list.
"""

from __future__ import annotations

import re
from typing import Final

from troth.errors import ApiMisuseError, CollateralError
from troth.evidence.collateral_source import CollateralRequest
from troth.evidence.intel.pck import VENDOR

__all__ = ["ROOT_LIST", "requests_for"]

ROOT_LIST: Final = "intel-root.crl"
"""Name of the root's revocation list, which Intel keeps elsewhere than the rest."""

_FORMS: Final = {
    "tee": re.compile(r"sgx|tdx"),
    "fmspc": re.compile(r"[0-9a-f]{12}"),
    "ca": re.compile(r"platform|processor"),
}


def requests_for(error: CollateralError) -> tuple[CollateralRequest, ...]:
    """Return the four documents that a platform needs.

    Raises:
        ApiMisuseError: the error is not about collateral of Intel's that can be fetched.
    """
    wanted = error.wanted
    if error.vendor != VENDOR or any(
        not form.fullmatch(wanted.get(name, "")) for name, form in _FORMS.items()
    ):
        raise ApiMisuseError(f"not about collateral of Intel's: {error}")
    tee, fmspc, ca = wanted["tee"], wanted["fmspc"], wanted["ca"]
    return (
        CollateralRequest(
            name=f"intel-{tee}-tcb-{fmspc}.json",
            path=f"/{tee}/certification/v4/tcb?fmspc={fmspc}",
            description=f"{tee.upper()} TCB info of FMSPC {fmspc}",
            changes=True,
        ),
        CollateralRequest(
            name=f"intel-{tee}-qe-identity.json",
            path=f"/{tee}/certification/v4/qe/identity",
            description=f"identity of {tee.upper()}'s quoting enclave",
            changes=True,
        ),
        CollateralRequest(
            name=f"intel-pck-{ca}.crl",
            path=f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der",
            description=f"revocation list of Intel's PCK {ca} CA",
            changes=True,
        ),
        CollateralRequest(
            name=ROOT_LIST,
            path="/sgx/certification/v4/rootcacrl",
            description="revocation list of the Intel SGX Root CA",
            changes=True,
        ),
    )
