# SPDX-License-Identifier: Apache-2.0
"""Quotes of SGX and TDX, and Intel's documents: one line for each decoder."""

from __future__ import annotations

import base64
import json

from fuzz.harness import Target, files
from support.intel import (
    AUTHORITY,
    COLLATERAL,
    PLATFORM,
    SGX_COLLATERAL,
    enclave,
    trust_domain,
    verify_sgx,
    verify_tdx,
)
from support.vendor_evidence import CHALLENGE
from troth.errors import CollateralError, DecodeError, VerificationError
from troth.evidence import sgx, tdx
from troth.evidence.context import Collateral
from troth.evidence.intel.documents import IntelDocuments
from troth.evidence.intel.pck import read_pck_chain
from troth.evidence.tsm_report import TsmReport

_TDX = [
    trust_domain().attest(CHALLENGE),
    trust_domain(version="4").attest(CHALLENGE),
    trust_domain(version="5/1.0").attest(CHALLENGE),
    trust_domain(fields={"td_attributes": b"\1\0\0\x10"}).attest(CHALLENGE),
]
_WRAPPED = [
    TsmReport(provider="tdx_guest", outblob=_TDX[0]).to_cbor(),
    json.dumps({"cc_eventlog": "", "quote": base64.b64encode(_TDX[0]).decode()}).encode(),
]
_SGX = [enclave().attest(CHALLENGE), enclave(fields={"attributes": b"\7"}).attest(CHALLENGE)]
_REAL = [*files("tdx/**/*quote*.dat"), *files("tdx/**/td-quote.bin")]
_DOCUMENTS = [*COLLATERAL.values(), *SGX_COLLATERAL.values(), *files("tdx/**/*response*")]
_REFUSALS = (DecodeError, VerificationError)


def _sort(data: bytes) -> object:
    return IntelDocuments.of(Collateral({"fuzz": data}))


def _verify_with(data: bytes) -> object:
    """Verify a good quote with collateral of which one document is fuzzed."""
    return verify_tdx(_TDX[0], collateral={**COLLATERAL, "tcbInfo": data})


INTEL_TARGETS = [
    Target(
        "tdx", lambda data: tdx.SCHEME.decode(data).report.to_json(), [*_TDX, *_WRAPPED, *_REAL]
    ),
    Target("sgx", lambda data: sgx.SCHEME.decode(data).report.to_json(), _SGX),
    Target("pck-chain", read_pck_chain, [PLATFORM.chain, AUTHORITY.platform().chain]),
    Target("intel-documents", _sort, _DOCUMENTS),
    Target("tdx-verify", verify_tdx, _TDX, _REFUSALS),
    Target("sgx-verify", verify_sgx, _SGX, _REFUSALS),
    Target("tdx-collateral", _verify_with, [COLLATERAL["tcbInfo"]], (*_REFUSALS, CollateralError)),
]
