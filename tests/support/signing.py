# SPDX-License-Identifier: Apache-2.0
"""Signers whose keys are made from a name, the same in every run."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec

from troth.formats.signer import LocalSigner


@cache
def p256_signer(name: str, *, key_id: str = "") -> LocalSigner:
    """Return an ES256 signer. Its key is public knowledge."""
    scalar = int.from_bytes(sha256(name.encode()).digest()) % (2**255)
    return LocalSigner(ec.derive_private_key(scalar or 1, ec.SECP256R1()), key_id=key_id)
