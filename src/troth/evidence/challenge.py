# SPDX-License-Identifier: Apache-2.0
"""The challenge that ties Evidence to a key and to one request.

Schemes let the caller choose 20 to 64 octets. Troth fills them with a hash over what the Evidence
must be about, so that the Evidence of one node cannot vouch for the key of another, and old
Evidence cannot answer a new request. Both sides compute it; nothing else travels.
"""

from __future__ import annotations

import hashlib

from troth.errors import ApiMisuseError

__all__ = ["CHALLENGE_SIZE_MAX", "CHALLENGE_SIZE_MIN", "derive_challenge"]

CHALLENGE_SIZE_MAX = 64
"""Octets of SHA-512, the widest field that a scheme offers."""

CHALLENGE_SIZE_MIN = 20
"""Octets below which a challenge is refused: 80 bits against a chosen collision, no less."""


def derive_challenge(label: bytes, spki: bytes, nonce: bytes, size: int) -> bytes:
    """Return the challenge for Evidence about the key `spki`, asked for with `nonce`.

    It is the first `size` octets of SHA-512 over label, SPKI and nonce, each preceded by its
    length in four octets, big-endian: no two different inputs give the same octets to hash.
    The caller answers for the nonce being fresh and for using it once.

    Args:
        label: says what the Evidence is for; a different one for each use.
        spki: DER SubjectPublicKeyInfo of the key that the Evidence is to vouch for.
        nonce: the Verifier's random octets.
        size: octets wanted, 20 to 64; a scheme's `challenge_size`.

    Raises:
        ApiMisuseError: a part is empty, or `size` is out of range.
    """
    if not label or not spki or not nonce:
        raise ApiMisuseError("a challenge needs a label, a public key and a nonce")
    if not CHALLENGE_SIZE_MIN <= size <= CHALLENGE_SIZE_MAX:
        raise ApiMisuseError(
            f"a challenge of {size} octets was asked for; "
            f"{CHALLENGE_SIZE_MIN} to {CHALLENGE_SIZE_MAX} are possible"
        )
    digest = hashlib.sha512()
    for part in (label, spki, nonce):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return digest.digest()[:size]
