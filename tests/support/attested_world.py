# SPDX-License-Identifier: Apache-2.0
"""One trust domain with its Verifier, and nodes that joined it: what attested TLS tests need."""

from __future__ import annotations

from troth.testing.lab import DOMAIN, Node
from troth.testing.lab import Lab as World

__all__ = ["DOMAIN", "Node", "World"]
