# SPDX-License-Identifier: Apache-2.0
"""YAML files of several documents, read without YAML's surprises.

Every scalar is the text that stands there ("no" is no boolean, 1.0 no number), a key may occur
once, and there are no anchors, so that a small file cannot mean a large one.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from troth.errors import ConfigurationError

__all__ = ["MAX_DOCUMENTS", "MAX_YAML_BYTES", "read_documents"]

MAX_YAML_BYTES = 4 * 1024 * 1024
MAX_DOCUMENTS = 20_000


class _Loader(yaml.BaseLoader):
    """Builds texts, lists and maps only."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs leave it out
        if getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(None, None, "anchors are not taken", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - as PyYAML declares it
    ) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key has to be text", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} occurs twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_documents(data: bytes, *, source: str) -> list[dict[str, Any]]:
    """Return the documents of a file that are not empty.

    Raises:
        ConfigurationError: not YAML, a document that is no map, or far too much of it.
    """
    if len(data) > MAX_YAML_BYTES:
        raise ConfigurationError(source=source, accepted=f"at most {MAX_YAML_BYTES} octets")
    found: list[dict[str, Any]] = []
    try:
        for number, document in enumerate(yaml.load_all(data, _Loader)):
            if document in (None, ""):
                continue
            if not isinstance(document, dict):
                raise ConfigurationError(
                    source=f"{source}, document {number + 1}", accepted="a map"
                )
            found.append(document)
            if len(found) > MAX_DOCUMENTS:
                raise ConfigurationError(
                    source=source, accepted=f"at most {MAX_DOCUMENTS} documents"
                )
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigurationError(source=source, accepted=f"YAML ({exc})") from exc
    return found
