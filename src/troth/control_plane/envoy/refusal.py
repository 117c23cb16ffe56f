# SPDX-License-Identifier: Apache-2.0
"""What an operator can do when Envoy refuses a configuration."""

from __future__ import annotations

__all__ = ["remedy_for"]

# A part of Envoy's message, and the remedy.
_REMEDIES = (
    (
        "Address already in use",
        "another program listens there: stop it or choose another listen address",
    ),
    (
        "Permission denied",
        "Envoy may not listen there: choose a port above 1023 or a directory that it can write",
    ),
    ("Cannot assign requested address", "this machine has no such address: correct `listen`"),
    ("malformed IP address", "give an IP address where Envoy listens, not a name"),
    (
        "certificate chain",
        "the agent's certificate is not one that Envoy reads: renew it",
    ),
    ("private key", "the agent's private key does not fit its certificate: renew both"),
    ("trusted CA", "a trust domain's bundle holds no usable CA certificate: correct the bundle"),
    ("no field", "this Envoy is of another version than the agent took it for: restart the agent"),
)


def remedy_for(reason: str) -> str:
    """Return what to do about Envoy's `reason`, or "" where nothing specific is known."""
    for part, remedy in _REMEDIES:
        if part.casefold() in reason.casefold():
            return remedy
    return ""
