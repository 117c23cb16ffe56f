# SPDX-License-Identifier: Apache-2.0
"""What does a verdict cost beside the signatures that it rests on?

The floor is the verification of the same signatures over the same octets, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from benchmarks.harness import Case, Table, measure
from support.appraisal import NOW, corims_of, verifier_of
from support.evidence import simulate
from troth.evidence import registry
from troth.evidence.simulator import CcaOptions, SimulatedPlatform
from troth.formats.cose import Sign1
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.verdict_cache import VerdictCache

__all__ = ["appraisal"]

_CHALLENGE = b"c" * 64
_AIMS = {"psa": (0.6, 2_500.0, 5_000.0), "cca": (0.75, 600.0, 750.0)}

# Reads every claim, as a policy of a site may.
_WIDE = """package troth.appraisal
import rego.v1
default status := "contraindicated"
status := input.status if {
	count(input.claims) > 0
	every finding in input.findings { finding.severity != "contraindicated" }
}
"""


def appraisal() -> list[Table]:
    """Measure verification and appraisal of each scheme that can be simulated."""
    return [_table(simulate()), _table(simulate(CcaOptions()))]


def _table(platform: SimulatedPlatform) -> Table:
    name = platform.scheme
    token = platform.attest(_CHALLENGE)
    corims = corims_of(platform)
    plain = verifier_of(*corims)
    keeping = verifier_of(*corims, cache=VerdictCache())
    wide = verifier_of(*corims, policy=AppraisalPolicy.from_text(_WIDE, name="wide.rego"))
    floor = f"{name}: its signatures alone"
    least, with_rego, kept = _AIMS[name]

    def appraised(verifier: Any) -> Callable[[], object]:
        return partial(verifier.appraise, token, now=NOW, challenge=_CHALLENGE)

    return measure(
        f"Verdicts: {name}",
        [
            Case(floor, _signatures(platform, token)),
            Case(f"{name}: decode and verify", _verification(plain, token), floor, aim=least),
            Case(
                f"{name}: verdict, policy evaluated each time",
                appraised(plain),
                floor,
                aim_per_second=with_rego,
            ),
            Case(f"{name}: verdict, policy that reads all claims", appraised(wide), floor),
            Case(
                f"{name}: verdict, kept for equal claims",
                appraised(keeping),
                floor,
                aim_per_second=kept,
            ),
        ],
    )


def _verification(verifier: Any, token: bytes) -> Callable[[], object]:
    scheme = registry.scheme(registry.detect(token))
    snapshot = verifier.endorsements.snapshot(NOW)
    context = verifier._context(NOW, None)

    def work() -> object:
        return scheme.verify(
            scheme.decode(token),
            trust_anchors=snapshot,
            freshness=_CHALLENGE,
            allow_simulator=True,
            context=context,
        )

    return work


def _signatures(platform: SimulatedPlatform, token: bytes) -> Callable[[], object]:
    """Return what verifies the token's signatures with ready keys and ready octets."""
    evidence: Any = registry.scheme(platform.scheme).decode(token)
    keys = platform.keys
    pairs: list[tuple[Sign1, ec.EllipticCurvePrivateKey]] = []
    if platform.scheme == "psa":
        pairs.append((evidence.envelope, keys.attestation))  # type: ignore[arg-type]
    else:
        pairs.append((evidence.platform.envelope, keys.attestation))  # type: ignore[arg-type]
        pairs.append((evidence.realm.envelope, keys.realm))  # type: ignore[arg-type]
    ready = [_ready(envelope, key.public_key()) for envelope, key in pairs]

    def work() -> None:
        for verify, signature, message, algorithm in ready:
            verify(signature, message, algorithm)

    return work


def _ready(envelope: Sign1, key: ec.EllipticCurvePublicKey) -> tuple[Any, bytes, bytes, ec.ECDSA]:
    from troth.formats import cbor  # noqa: PLC0415 - only to prepare

    half = len(envelope.signature) // 2
    signature = encode_dss_signature(
        int.from_bytes(envelope.signature[:half]), int.from_bytes(envelope.signature[half:])
    )
    message = cbor.encode(["Signature1", envelope.protected_bytes, b"", envelope.payload])
    hash_ = hashes.SHA256() if half == 32 else hashes.SHA384()
    key.verify(signature, message, ec.ECDSA(hash_))
    return key.verify, signature, message, ec.ECDSA(hash_)
