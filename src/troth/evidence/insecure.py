# SPDX-License-Identifier: Apache-2.0
"""What may sign correctly and must not count: the platform simulator and published test keys.

Both are refused unless the operator allows them, and stay labelled in every result when allowed.
"""

from __future__ import annotations

from troth.errors import SignatureError
from troth.evidence.published_keys import PUBLISHED_KEYS

__all__ = ["SIMULATOR_MARK", "refuse_published_key", "refuse_simulator"]

SIMULATOR_MARK = b"TROTH-INSECURE-SIMULATOR"
"""How every implementation id of `troth.evidence.simulator` starts."""


def refuse_simulator(implementation_id: bytes, *, allowed: bool) -> tuple[str, ...]:
    """Return the reasons to label Evidence from the simulator with; none for other Evidence.

    Raises:
        SignatureError: it is the simulator's, and that is not allowed.
    """
    if not implementation_id.startswith(SIMULATOR_MARK):
        return ()
    if not allowed:
        raise SignatureError(
            "the Evidence comes from Troth's platform simulator, whose keys lie in a file",
            remedy="For a test, start with --allow-simulator. In production, attest hardware.",
        )
    return ("platform simulator",)


def refuse_published_key(thumbprint: str, *, role: str, allowed: bool) -> tuple[str, ...]:
    """Return the reasons to label Evidence with for this key; none for a key not known as public.

    Args:
        thumbprint: RFC 7638 SHA-256, lower-case hex.
        role: whose key it is, for the message, such as "IAK".
        allowed: whether such keys are taken at all.

    Raises:
        SignatureError: everybody has the private key, and that is not allowed.
    """
    origin = PUBLISHED_KEYS.get(thumbprint)
    if origin is None:
        return ()
    if not allowed:
        raise SignatureError(
            f"the {role} is a published test key ({origin}): anybody can sign with it",
            remedy="For a test, start with --allow-test-keys. In production, provision another "
            f"key and withdraw the one with thumbprint {thumbprint}.",
        )
    return (f"published test key as {role}: {origin}",)
