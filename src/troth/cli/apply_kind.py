# SPDX-License-Identifier: Apache-2.0
"""What `troth apply` knows of a kind: how to read it, and how to bring a server to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from troth.cli.operators import Operator
from troth.errors import ConfigurationError, DecodeError
from troth.mesh.resources import read_resource

__all__ = ["Kind", "Step", "Wanted", "differences", "read"]

Wanted = Mapping[str, Sequence[Any]]
"""All that the files say, by kind: a resource may refer to one that comes with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one document does.

    Attributes:
        kind, name: what it is about.
        action: "create", "change" or "keep".
        changes: field to what is there and what comes; None for what is not there.
        method, path, message: the request, where there is one.
        then: requests that follow it, as method, path and message.
    """

    kind: str
    name: str
    action: str
    changes: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    method: str = ""
    path: str = ""
    message: object = None
    then: tuple[tuple[str, str, object], ...] = ()


class Kind(Protocol):
    """Documents of one kind."""

    def plan(self, wanted: Wanted, operator: Operator) -> list[Step]:
        """Return what has to be done for those of this kind, in order; changes nothing.

        Raises:
            ConfigurationError: one refers to what does not exist, or asks for what no file may do.
        """
        ...


def read(kind: str, document: Mapping[str, Any], *, source: str) -> Any:  # noqa: ANN401 - its kind's
    """Return what a document says.

    Raises:
        ConfigurationError: naming the field and the accepted form.
    """
    try:
        return read_resource(kind, document)
    except DecodeError as exc:
        noun = "an entry" if kind == "Entry" else f"a {kind}"
        accepted = f"{noun}: {exc}" + (f" ({exc.remedy})" if exc.remedy else "")
        raise ConfigurationError(source=source, accepted=accepted) from exc


def differences(
    before: Mapping[str, object], after: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """Return the fields that differ; what is empty counts as absent, texts in a list have no order."""
    names = [*before, *(name for name in after if name not in before)]
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if _value(before.get(name)) != _value(after.get(name))
    }


def _value(value: object) -> object:
    if value in (None, "", (), [], 0, False):
        return None
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return sorted(value)
    return value
