# SPDX-License-Identifier: Apache-2.0
"""What does a quote cost beside the signature that it rests on?

The floor is one verification of the same signature over the same octets. A TPM's Evidence may
bring its logs; what they cost is a row of its own.
"""

from __future__ import annotations

from functools import partial

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from benchmarks.harness import Case, Table, measure
from support.appraisal import IDENTITY, NOW, store_of
from support.software_tpm import SHA256, BootLog, FileLog, SoftwareTpm
from troth.cli.corim.tpm2 import tpm2_corim
from troth.endorsement.build import AttestKey
from troth.evidence.tpm2 import SCHEME
from troth.evidence.tpm2.measurements import pcr_values
from troth.formats.corim.corim import Corim
from troth.verifier.verdict_cache import VerdictCache
from troth.verifier.verifier import Verifier

__all__ = ["tpm2"]

_CHALLENGE = bytes(range(32))
_FLOOR = "tpm2: its signature alone"


def tpm2() -> list[Table]:
    """Measure verification and appraisal of TPM quotes."""
    tpm = SoftwareTpm()
    log, files = BootLog(tpm=tpm), FileLog(tpm=tpm)
    log.boot()
    for number in range(100):
        log.add_grub(f"insmod module-{number}")
    bare = tpm.evidence(_CHALLENGE)
    logged = tpm.evidence(_CHALLENGE, event_log=log.data)
    files.add_aggregate(tpm)
    for number in range(1_000):
        files.add(f"/usr/bin/program-{number}", b"%d" % number)
    filed = tpm.evidence(_CHALLENGE, {SHA256: range(11)}, ima_log=files.binary)
    evidence = SCHEME.decode(bare)
    signature = encode_dss_signature(evidence.signature.r, evidence.signature.s)
    floor = partial(
        tpm.key.public_key().verify, signature, evidence.quote.raw, ec.ECDSA(hashes.SHA256())
    )
    # Events are described where the log is sent; a quote without it is held against values alone.
    plain, explained = _verifier(tpm, bare), _verifier(tpm, logged)
    kept = _verifier(tpm, bare, cache=VerdictCache())

    def verified(data: bytes) -> object:
        return SCHEME.verify(
            SCHEME.decode(data),
            trust_anchors=plain.endorsements.snapshot(NOW),
            freshness=_CHALLENGE,
        )

    def checked() -> object:
        decoded = SCHEME.decode(bare)
        decoded.signature.verify(key, decoded.quote.raw, format="quote")
        return pcr_values(decoded)

    (key,) = plain.endorsements.snapshot(NOW).keys(
        "tpm2", implementation_id=b"", instance_id=tpm.name
    )
    appraised = partial(plain.appraise, bare, now=NOW, challenge=_CHALLENGE)
    return [
        measure(
            "Verdicts: tpm2",
            [
                Case(_FLOOR, floor),
                Case("tpm2: decode, signature, registers", checked, _FLOOR, aim=0.6),
                Case("tpm2: decode and verify", partial(verified, bare), _FLOOR),
                Case("tpm2: the same, log of 117 events", partial(verified, logged), _FLOOR),
                Case("tpm2: the same, 1,001 files", partial(verified, filed), _FLOOR),
                Case("tpm2: verdict, policy evaluated each time", appraised, _FLOOR),
                Case(
                    "tpm2: the same, log of 117 events described",
                    partial(explained.appraise, logged, now=NOW, challenge=_CHALLENGE),
                    _FLOOR,
                ),
                Case(
                    "tpm2: verdict, kept for equal claims",
                    partial(kept.appraise, bare, now=NOW, challenge=_CHALLENGE),
                    _FLOOR,
                ),
            ],
        )
    ]


def _verifier(tpm: SoftwareTpm, data: bytes, *, cache: VerdictCache | None = None) -> Verifier:
    return Verifier(identity=IDENTITY, endorsements=store_of(_corim(tpm, data)), cache=cache)


def _corim(tpm: SoftwareTpm, data: bytes) -> Corim:
    return tpm2_corim(
        SCHEME.decode(data),
        corim_id="maker",
        class_id=b"class",
        registers=None,
        leave_out=(),
        keys=[AttestKey(instance_id=tpm.name, key=tpm.pem)],
        vendor="",
        model="",
        validity=None,
    )
