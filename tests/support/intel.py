# SPDX-License-Identifier: Apache-2.0
"""One simulated authority of Intel's, a platform of its, and collateral; and Intel's own documents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from support.vectors import own_vectors, vectors
from support.vendor_evidence import verify_with
from troth.evidence.intel.verification import VerifiedQuote
from troth.testing.intel_authority import IntelAuthority, level, module_level
from troth.testing.intel_quotes import SimulatedEnclave, SimulatedTrustDomain

AUTHORITY = IntelAuthority()
PLATFORM = AUTHORITY.platform()

UP_TO_DATE = level((3, 3, 2, 2, 4, 1, 0, 5), 13, (5, 0, 3))
OUT_OF_DATE = level(
    (2, 2, 2, 2, 3, 1, 0, 5), 13, (5, 0, 2), status="OutOfDate", advisories=["INTEL-SA-01036"]
)
REVOKED = level((1,), 1, (1,), status="Revoked")
MODULES = {"TDX_01": [module_level(6), module_level(4, status="OutOfDate")]}
COLLATERAL = AUTHORITY.collateral("TDX", [OUT_OF_DATE, UP_TO_DATE, REVOKED], modules=MODULES)

SGX_UP_TO_DATE = level((3, 3, 2, 2, 4, 1, 0, 5), 13)
SGX_COLLATERAL = AUTHORITY.collateral("SGX", [SGX_UP_TO_DATE])


def tdx_collateral(*levels: Mapping[str, Any], **changes: Any) -> dict[str, bytes]:
    """Return collateral for the platform with these levels, or with changes."""
    given = {"modules": MODULES, **changes}
    return AUTHORITY.collateral("TDX", levels or (UP_TO_DATE,), **given)


def trust_domain(**changes: Any) -> SimulatedTrustDomain:
    """Return a good trust domain but for these attributes."""
    return SimulatedTrustDomain(**{"authority": AUTHORITY, "platform": PLATFORM, **changes})


def enclave(**changes: Any) -> SimulatedEnclave:
    """Return a good enclave but for these attributes."""
    return SimulatedEnclave(**{"authority": AUTHORITY, "platform": PLATFORM, **changes})


def verify_tdx(data: bytes, **changes: Any) -> VerifiedQuote[Any]:
    """Verify a quote of a trust domain."""
    roots = changes.pop("roots", (AUTHORITY.root,))
    verified = verify_with(data, "tdx", *roots, **{"collateral": COLLATERAL, **changes})
    assert isinstance(verified, VerifiedQuote)
    return verified


def verify_sgx(data: bytes, **changes: Any) -> VerifiedQuote[Any]:
    """Verify a quote of an enclave."""
    roots = changes.pop("roots", (AUTHORITY.root,))
    verified = verify_with(data, "sgx", *roots, **{"collateral": SGX_COLLATERAL, **changes})
    assert isinstance(verified, VerifiedQuote)
    return verified


IN_2023 = datetime(2023, 7, 1, tzinfo=UTC)
IN_2026 = datetime(2026, 2, 25, tzinfo=UTC)
SGX_TIME = datetime(2025, 6, 25, tzinfo=UTC)
"""When the collateral below holds."""


def of_2023() -> dict[str, bytes]:
    """Return Intel's answers about FMSPC 50806f000000 in summer 2023."""
    folder = vectors("tdx") / "go-tdx-guest"
    names = ("sample_tcbInfo_response", "sample_qeIdentity_response", "pckcrl", "rootcrl.der")
    signing = own_vectors("intel") / "tcb-signing-2018.pem"
    return _documents(*(folder / name for name in names), signing)


def of_2026() -> dict[str, bytes]:
    """Return Intel's answers about FMSPC 90c06f000000 in February 2026."""
    return _documents(own_vectors("intel") / "collateral-90c06f000000-2026-02.json")


def of_sgx() -> dict[str, bytes]:
    """Return Intel's answers about the SGX quote among our own vectors."""
    return _documents(own_vectors("intel") / "collateral-00a067110000-2025-06.json")


def sgx_quote() -> bytes:
    """Return a real quote of an enclave."""
    return (own_vectors("intel") / "sgx-quote").read_bytes()


def intel_root() -> x509.Certificate:
    """Return the root that Intel publishes."""
    pem = (vectors("tdx") / "go-tdx-guest" / "trusted_root.pem").read_bytes()
    return x509.load_pem_x509_certificate(pem)


def _documents(*paths: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths}
