# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest

from support.logical_tees import MINUTE, NOW, gateway, realm, tee
from troth.errors import DecodeError
from troth.mesh.membership import membership_of
from troth.mesh.node import NodeState
from troth.mesh.node_record import NodeRecord
from troth.mesh.placement import Action, Assignment, Placement, Unit, decide
from troth.mesh.tier import Tier

UNIT = Unit(name="api.service", text="[Service]\nExecStart=/bin/true\n")


def placement(**changes: Any) -> Placement:
    values: dict[str, Any] = {
        "name": "api",
        "ltee": "claims-processing",
        "member_class": "realm",
        "units": (UNIT,),
        "secrets": ("token",),
    }
    return Placement(**(values | changes))


def action(node: NodeRecord, **changes: Any) -> Action:
    return decide(placement(**changes), membership_of(tee(), [node], now=NOW), node.id)


def test_an_admitted_member_of_the_class_runs_it() -> None:
    assert action(realm("r1")) is Action.RUN
    assert action(gateway("g1"), member_class="gateway") is Action.RUN


@pytest.mark.parametrize(
    "changes",
    [{"member_class": "gateway"}, {"member_class": "unknown"}, {"ltee": "another"}],
)
def test_a_member_of_something_else_does_not(changes: dict[str, Any]) -> None:
    assert action(realm("r1"), **changes) is Action.DRAIN


def test_a_degraded_member_keeps_what_it_has_until_its_connections_end() -> None:
    node = realm("r1", state=NodeState.DEGRADED)
    assert action(node) is Action.KEEP
    later = membership_of(tee(), [node], now=NOW + 15 * MINUTE)
    assert decide(placement(), later, "r1") is Action.DRAIN


@pytest.mark.parametrize(
    "change",
    [
        {"state": NodeState.QUARANTINED},
        {"state": NodeState.EXPELLED},
        {"state": NodeState.ATTESTED},
        {"tier": Tier.MEASURED},
        {"expires": NOW},
        {"svid": None},
    ],
)
def test_who_is_no_member_drains(change: dict[str, Any]) -> None:
    assert action(realm("r1", **change)) is Action.DRAIN


def test_names_are_unique_in_a_placement() -> None:
    for changes in ({"units": (UNIT, UNIT)}, {"secrets": ("token", "token")}):
        with pytest.raises(DecodeError, match="of one name"):
            placement(**changes)


def test_an_assignment_does_not_print_its_secrets() -> None:
    given = Assignment(name="api", action=Action.RUN, secrets={"token": b"hush"})
    assert "hush" not in repr(given)
