# SPDX-License-Identifier: Apache-2.0
"""What a key must be so that what it signs, a TPM made.

A restricted signing key signs TPM_GENERATED structures only if the TPM made them itself. Any
other signing key signs whatever somebody puts before it, also something that looks like a quote.

Source: TPM 2.0 Library, Part 1, section 31 (attestation) and Part 2, section 8.3.3 (attributes).
"""

from __future__ import annotations

from typing import Final

from troth.errors import SignatureError
from troth.formats.tpm.algorithms import NULL, STRONG_HASHES, algorithm_name
from troth.formats.tpm.public import (
    DECRYPT,
    FIXED_PARENT,
    FIXED_TPM,
    RESTRICTED,
    SENSITIVE_DATA_ORIGIN,
    SIGN,
    TpmPublic,
)
from troth.formats.tpm.signature import TpmSignature

__all__ = ["require_attestation_key", "require_scheme"]

_REQUIRED: Final = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | SIGN
_REMEDY: Final = (
    "Make the key with tpm2_createak, or with the attributes fixedtpm, fixedparent, "
    "sensitivedataorigin, restricted and sign, and without decrypt."
)


def require_attestation_key(key: TpmPublic) -> None:
    """Refuse a key whose quotes anybody could have made.

    Says nothing about whether the public area is that of a key in a TPM: the name that was
    registered, or a credential that the TPM activated, does.

    Raises:
        SignatureError: an attribute is missing or too many, or the key is known by a weak name.
    """
    missing = key.missing(_REQUIRED)
    if missing:
        raise SignatureError(
            f"the attestation key is not {', '.join(missing)}: a quote under it need not come "
            "from a TPM",
            remedy=_REMEDY,
        )
    if key.attributes & DECRYPT:
        raise SignatureError(
            "the attestation key may decrypt as well as sign, which no restricted key may",
            remedy=_REMEDY,
        )
    if key.name_algorithm not in STRONG_HASHES:
        raise SignatureError(
            f"the attestation key has a name by {algorithm_name(key.name_algorithm)}, under "
            "which another key could be passed off",
            remedy="Make the key with name algorithm SHA-256.",
        )


def require_scheme(key: TpmPublic, signature: TpmSignature) -> None:
    """Refuse a signature by another scheme than the key's own.

    Raises:
        SignatureError: they differ; the TPM would not have signed so.
    """
    own = key.scheme
    if own.algorithm == NULL:  # only a key that is not restricted has none
        return
    if (own.algorithm, own.hash) != (signature.scheme, signature.hash.id):
        raise SignatureError(
            f"signed with {algorithm_name(signature.scheme)} over {signature.hash.name}; the "
            f"attestation key signs with {algorithm_name(own.algorithm)} over "
            f"{algorithm_name(own.hash)} only"
        )
