# SPDX-License-Identifier: Apache-2.0
"""What does a verdict about an SNP guest or an enclave cost beside the signature that it rests on?

The floor is one ECDSA P-384 verification over the same octets: the report's, or the document's. The
certificates above it are remembered, as they are for a fleet; what they cost the first time is a
row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.harness import Case, Table, measure
from support.vendor_evidence import CHALLENGE, NOW
from troth.endorsement.build import measured_corim
from troth.endorsement.sev_snp_corim import sev_snp_corim
from troth.endorsement.store import EndorsementStore
from troth.evidence import registry
from troth.evidence.nitro import NitroScheme
from troth.evidence.sev_snp import SevSnpScheme
from troth.evidence.sev_snp.report import SIGNED_SIZE
from troth.formats import cbor
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.comid import Comid
from troth.formats.corim.corim import Corim
from troth.formats.corim.environment import EnvironmentClass, EnvironmentMap
from troth.formats.corim.triples import KeyTriple, Triples
from troth.testing.nitro import SimulatedEnclave
from troth.testing.sev_snp import SimulatedSnpGuest
from troth.verifier.result import VerifierIdentity
from troth.verifier.verdict_cache import VerdictCache
from troth.verifier.verifier import Verifier

__all__ = ["vendor_schemes"]

_ECDSA = ec.ECDSA(hashes.SHA384())


def vendor_schemes() -> list[Table]:
    """Measure verification and appraisal of schemes whose keys are certified by a vendor."""
    return [_sev_snp(), _nitro()]


def _sev_snp() -> Table:
    guest = SimulatedSnpGuest()
    data = guest.attest(CHALLENGE)
    evidence = registry.scheme("sev_snp").decode(data)
    parts = evidence.report.signature_r, evidence.report.signature_s
    corim = sev_snp_corim(
        corim_id="maker",
        measurement=b"\x11" * 48,
        policy=0x30000,
        minimum_tcb=guest.tcb_version.value,
        roots=[guest.authority.ark],
    )
    floor = partial(
        guest.key.public_key().verify,
        encode_dss_signature(*parts),
        evidence.report_bytes[:SIGNED_SIZE],
        _ECDSA,
    )
    return _table("sev_snp", data, floor, [corim], SevSnpScheme, aim=600.0)


def _nitro() -> Table:
    enclave = SimulatedEnclave()
    data = enclave.attest(CHALLENGE)
    envelope = registry.scheme("nitro").decode(data).envelope
    half = len(envelope.proof) // 2
    signature = encode_dss_signature(
        int.from_bytes(envelope.proof[:half]), int.from_bytes(envelope.proof[half:])
    )
    signed = cbor.encode(["Signature1", envelope.protected_bytes, b"", envelope.payload])
    corims = [
        _root(enclave),
        measured_corim(
            corim_id="maker",
            scheme="nitro",
            class_id=enclave.pcrs[0],
            registers={index: [value] for index, value in enclave.pcrs.items()},
        ),
    ]
    floor = partial(enclave.key.public_key().verify, signature, signed, _ECDSA)
    return _table("nitro", data, floor, corims, NitroScheme, aim=None)


def _root(enclave: SimulatedEnclave) -> Corim:
    pem = enclave.authority.root.public_bytes(Encoding.PEM).decode()
    environment = EnvironmentMap(environment_class=EnvironmentClass(vendor="test", model="root"))
    keys = (KeyTriple(environment, (Tag(tags.CERTIFICATE, pem),)),)
    comid = Comid(tag_id="root", triples=Triples(attest_key=keys))
    return Corim(corim_id="root", tags=(comid,), profile="tag:troth.example,2026:nitro#1.0.0")


def _table(
    name: str,
    data: bytes,
    floor: Callable[[], object],
    corims: Sequence[Corim],
    unacquainted: Callable[[], Any],
    *,
    aim: float | None,
) -> Table:
    plain, keeping = _verifier(corims), _verifier(corims, cache=VerdictCache())
    bare = f"{name}: its signature alone"
    known = registry.scheme(name)

    def appraised(verifier: Verifier) -> Callable[[], object]:
        return partial(verifier.appraise, data, now=NOW, challenge=CHALLENGE)

    return measure(
        f"Verdicts: {name}",
        [
            Case(bare, floor),
            Case(
                f"{name}: decode and verify, certificates known",
                _verification(plain, lambda: known, data),
                bare,
                aim=0.6,
            ),
            Case(
                f"{name}: decode and verify, certificates never seen",
                _verification(plain, unacquainted, data),
                bare,
            ),
            Case(
                f"{name}: verdict, policy evaluated each time",
                appraised(plain),
                bare,
                aim_per_second=aim,
            ),
            Case(f"{name}: verdict, kept for equal claims", appraised(keeping), bare),
        ],
    )


def _verifier(corims: Sequence[Corim], **given: Any) -> Verifier:
    store = EndorsementStore()
    for corim in corims:
        store.provision(corim, now=NOW, source="benchmark")
    return Verifier(
        identity=VerifierIdentity(developer="benchmark", build="1"),
        endorsements=store,
        allow_simulator=True,
        **given,
    )


def _verification(
    verifier: Verifier, scheme: Callable[[], Any], data: bytes
) -> Callable[[], object]:
    snapshot = verifier.endorsements.snapshot(NOW)
    context = verifier._context(NOW, None)

    def work() -> object:
        chosen = scheme()
        return chosen.verify(
            chosen.decode(data),
            trust_anchors=snapshot,
            freshness=CHALLENGE,
            allow_simulator=True,
            context=context,
        )

    return work
