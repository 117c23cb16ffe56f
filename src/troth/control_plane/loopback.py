# SPDX-License-Identifier: Apache-2.0
"""Whether an address is this machine's own, where nobody else listens in."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback"]


def is_loopback(host: str) -> bool:
    """Say whether `host` is a loopback address, or localhost by name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
