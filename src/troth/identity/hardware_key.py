# SPDX-License-Identifier: Apache-2.0
"""A mark in certificates whose key cannot leave a device: a certificate policy (RFC 5280 4.2.1.4).

A proof by a key in hardware is worth more than one by a key in memory, and a certificate is where
a peer learns which it was. That two keys differ would say nothing: who steals one from memory also
steals the next. So the authority says it, and has to know it: from a credential activation of a
TPM, or from Evidence about where the key was made.

The object identifier comes from a UUID, as ITU-T X.667 allows without registration.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509

from troth.identity.certificates import extensions_of
from troth.identity.x509_svid import X509Svid

__all__ = ["HARDWARE_KEY", "hardware_key_policy", "has_hardware_key"]

HARDWARE_KEY: Final = x509.ObjectIdentifier("2.25.145146801880933226131267634534645078153")


def hardware_key_policy() -> x509.CertificatePolicies:
    """Return the extension that marks a key as held in hardware; add it as non-critical."""
    return x509.CertificatePolicies([x509.PolicyInformation(HARDWARE_KEY, None)])


def has_hardware_key(svid: X509Svid) -> bool:
    """Say whether the leaf carries the mark. As believable as the authority that signed it.

    Raises:
        DecodeError: the leaf's extensions cannot be read.
    """
    return any(
        policy.policy_identifier == HARDWARE_KEY
        for extension in extensions_of(svid.leaf)
        if isinstance(extension.value, x509.CertificatePolicies)
        for policy in extension.value
    )
