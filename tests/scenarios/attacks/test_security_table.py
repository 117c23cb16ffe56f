# SPDX-License-Identifier: Apache-2.0
"""Runs the first table of docs/explanation/security.md: each cell is an attack, twice."""

import pytest

from support.attacks import ATTACKS, COLUMNS, Cast, Scene
from support.security_page import rows
from troth.formats.exported_authenticator import Role

WORDS = {"stopped": False, "not stopped": True, "—": None}


HEADER, *TABLE = rows("attack")
CELLS = [
    pytest.param(row[0], column, WORDS[cell], id=f"{row[0]}: {column}")
    for row in TABLE
    for column, cell in zip(HEADER[1:], row[1:], strict=True)
    if WORDS[cell] is not None
]


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast()


def test_the_table_and_the_attacks_are_the_same() -> None:
    assert HEADER[1:] == list(COLUMNS)
    assert [row[0] for row in TABLE] == list(ATTACKS)


@pytest.mark.parametrize("role", [Role.CLIENT, Role.SERVER], ids=["client", "server"])
@pytest.mark.parametrize(("attack", "column", "succeeds"), CELLS)
async def test_an_attack_ends_as_the_table_says(
    cast: Cast, attack: str, column: str, *, succeeds: bool, role: Role
) -> None:
    assert await ATTACKS[attack](Scene(cast, COLUMNS[column], role)) is succeeds
