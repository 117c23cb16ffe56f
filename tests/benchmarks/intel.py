# SPDX-License-Identifier: Apache-2.0
"""What does a verdict on a quote of SGX or TDX cost beside dcap-qvl alone?

The floor is the library's own verification of the same quote, with collateral that it has read
already: certificates, revocation lists, TCB info, QE identity, and three signatures of the quote.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.harness import Case, Table, measure
from support.appraisal import IDENTITY, store_of
from support.intel import AUTHORITY, COLLATERAL, SGX_COLLATERAL, enclave, trust_domain
from support.vendor_evidence import CHALLENGE, NOW
from troth.endorsement.intel_corim import sgx_corim, tdx_corim
from troth.evidence import registry
from troth.evidence.context import Collateral
from troth.evidence.intel import library
from troth.evidence.intel.collateral import choose_collateral
from troth.evidence.intel.documents import IntelDocuments
from troth.evidence.intel.pck import find_root, read_pck_chain
from troth.formats.ar4si import TrustTier
from troth.formats.corim.corim import Corim
from troth.verifier.verdict_cache import VerdictCache
from troth.verifier.verifier import Verifier

__all__ = ["intel"]


def intel() -> list[Table]:
    """Measure verification and appraisal of quotes."""
    return [
        _table("tdx", trust_domain().attest(CHALLENGE), COLLATERAL, aim=800.0),
        _table("sgx", enclave().attest(CHALLENGE), SGX_COLLATERAL, aim=None),
    ]


def _table(name: str, quote: bytes, documents: dict[str, bytes], *, aim: float | None) -> Table:
    given: dict[str, Any] = {
        "identity": IDENTITY,
        "endorsements": store_of(_described(name, quote)),
        "collateral": Collateral(documents),
        "allow_simulator": True,
    }
    plain, keeping = Verifier(**given), Verifier(**given, cache=VerdictCache())
    result = plain.appraise(quote, now=NOW, challenge=CHALLENGE)
    if result.status is not TrustTier.AFFIRMING:
        raise AssertionError(result.findings)
    floor = f"{name}: dcap-qvl alone"

    def appraised(verifier: Verifier) -> Callable[[], object]:
        return partial(verifier.appraise, quote, now=NOW, challenge=CHALLENGE)

    return measure(
        f"Verdicts: {name}",
        [
            Case(floor, _library_alone(name, quote, documents)),
            Case(f"{name}: decode and verify", _verification(plain, name, quote), floor),
            Case(
                f"{name}: verdict, policy evaluated each time",
                appraised(plain),
                floor,
                aim_per_second=aim,
            ),
            Case(f"{name}: verdict, kept for equal claims", appraised(keeping), floor),
        ],
    )


def _described(name: str, quote: bytes) -> Corim:
    report: Any = registry.scheme(name).decode(quote).report  # type: ignore[attr-defined]
    if name == "sgx":
        return sgx_corim(corim_id="maker", mr_enclave=report.mr_enclave, roots=[AUTHORITY.root])
    rtmrs = (report.rtmr0, report.rtmr1, report.rtmr2, report.rtmr3)
    return tdx_corim(corim_id="maker", mr_td=report.mr_td, rtmrs=rtmrs, roots=[AUTHORITY.root])


def _verification(verifier: Verifier, name: str, quote: bytes) -> Callable[[], object]:
    scheme = registry.scheme(name)
    snapshot = verifier.endorsements.snapshot(NOW)
    context = verifier._context(NOW, None)

    def work() -> object:
        return scheme.verify(
            scheme.decode(quote),
            trust_anchors=snapshot,
            freshness=CHALLENGE,
            allow_simulator=True,
            context=context,
        )

    return work


def _library_alone(name: str, quote: bytes, documents: dict[str, bytes]) -> Callable[[], object]:
    """Return what calls the library with everything ready."""
    evidence: Any = registry.scheme(name).decode(quote)
    found = IntelDocuments.of(Collateral(documents))
    chain = read_pck_chain(evidence.quote.signature.pck_chain)
    root = find_root(chain, anchors=(AUTHORITY.root,), vendors=frozenset())
    chosen = choose_collateral(
        found, tee=name.upper(), chain=chain, root=root, now=NOW, grace=NOW - NOW
    )
    dcap_qvl = importlib.import_module("dcap_qvl")
    verifier = dcap_qvl.QuoteVerifier(AUTHORITY.root.public_bytes(Encoding.DER))
    collateral, seconds = library._collateral(chosen.documents), int(NOW.timestamp())
    policy = dcap_qvl.QuotePolicy.claims_only(seconds)
    return partial(verifier.verify_with_policy, quote, collateral, seconds, policy)
