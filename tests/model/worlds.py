# SPDX-License-Identifier: Apache-2.0
"""The worlds that are visited: small ones in every test run, larger ones by `make model`."""

from __future__ import annotations

from collections.abc import Mapping

from model.world import Budget, World, joined

__all__ = ["LARGE", "SMALL"]

SMALL: Mapping[str, World] = {
    "nodes that join": World(left=Budget(ticks=1, joins=2)),
    "results that run out": joined(Budget(ticks=2, joins=1)),
    "an operator and a renewal": joined(Budget(joins=1, operator=1)),
    "an operator and a silent feed": joined(Budget(ticks=2, operator=1)),
    "a withdrawal and a renewal": joined(Budget(ticks=1, joins=1, withdrawals=1)),
    "a copied machine": joined(Budget(joins=2, copies=1)),
    "a stolen key": joined(Budget(ticks=1, joins=1, thefts=1)),
    "a reboot": joined(Budget(ticks=1, joins=1, reboots=1)),
    "a machine that turns": joined(Budget(ticks=1, joins=1, spoils=1)),
}

LARGE: Mapping[str, World] = {
    "nodes that join, and an operator": World(left=Budget(ticks=1, joins=2, operator=1)),
    "nodes that join, and a withdrawal": World(left=Budget(ticks=1, joins=2, withdrawals=1)),
    "results that run out, and two renewals": joined(Budget(ticks=2, joins=2)),
    "an operator, a renewal and a silent feed": joined(Budget(ticks=1, joins=1, operator=1)),
    "two operators and a renewal": joined(Budget(ticks=1, joins=1, operator=2)),
    "a copied machine and an operator": joined(Budget(joins=2, copies=1, operator=1)),
    "a stolen key and an operator": joined(Budget(ticks=1, joins=1, thefts=1, operator=1)),
    "a reboot and a withdrawal": joined(Budget(ticks=1, joins=1, reboots=1, withdrawals=1)),
    "a machine that turns, and an operator": joined(Budget(ticks=1, joins=1, spoils=1, operator=1)),
}
