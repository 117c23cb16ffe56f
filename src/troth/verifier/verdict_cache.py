# SPDX-License-Identifier: Apache-2.0
"""Conclusions kept for Evidence that says the same again, but for its nonce.

A fleet that attests every few minutes sends the same claims over and over. Signatures, binding and
freshness are checked each time; what the claims are worth depends only on the claims, the
Reference Values and the policy, and all three are in the key. A policy that looks at nonces or at
the time is not cached at all (`AppraisalPolicy.repeatable`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import Any, Final

import msgspec

from troth.evidence.evidence import NonceMatched, VerifiedEvidence
from troth.verifier.conclusion import Judgement
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.policy_document import without_nonces

__all__ = ["MAX_VERDICTS", "VerdictCache"]

MAX_VERDICTS: Final = 16_384
"""Judgements kept, least recently used first to go; one takes about 10 KB."""


class VerdictCache:
    """At most `size` judgements. May be used from several threads."""

    def __init__(self, size: int = MAX_VERDICTS) -> None:
        self._size = size
        self._lock = Lock()
        self._verdicts: OrderedDict[bytes, Judgement] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._verdicts)

    @staticmethod
    def key(
        verified: VerifiedEvidence[Any],
        *,
        scheme: str,
        policy: AppraisalPolicy,
        epoch: str,
        candidate: AppraisalPolicy | None = None,
    ) -> bytes:
        """Return what the judgement depends on, as a digest."""
        freshness = "" if isinstance(verified.freshness, NonceMatched) else verified.freshness.why
        content = msgspec.json.encode(
            (
                scheme,
                policy.id,
                policy.program.digest,
                "" if candidate is None else candidate.id,
                "" if candidate is None else candidate.program.digest,
                epoch,
                freshness,
                isinstance(verified.freshness, NonceMatched),
                verified.signer,
                verified.insecure,
                verified.implementation_id,
                verified.instance_id,
                verified.boot_session,
                [(each.label, without_nonces(each.claims)) for each in verified.claims_sets],
            )
        )
        return hashlib.sha256(content).digest()

    def get(self, key: bytes) -> Judgement | None:
        """Return the judgement, or None."""
        with self._lock:
            verdict = self._verdicts.get(key)
            if verdict is None:
                self.misses += 1
                return None
            self._verdicts.move_to_end(key)
            self.hits += 1
            return verdict

    def put(self, key: bytes, verdict: Judgement) -> None:
        """Keep a judgement."""
        with self._lock:
            self._verdicts[key] = verdict
            self._verdicts.move_to_end(key)
            while len(self._verdicts) > self._size:
                self._verdicts.popitem(last=False)
