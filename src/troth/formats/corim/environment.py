# SPDX-License-Identifier: Apache-2.0
"""Environments: the subject of nearly every triple.

Source: draft-ietf-rats-corim (0b855af) "Environments".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from troth.formats.cbor import Tag
from troth.formats.corim.identifier import decode_identifier
from troth.formats.corim.node import Node

__all__ = ["EnvironmentClass", "EnvironmentMap", "decode_class", "decode_environment"]

_CLASS_KEYS: Final = frozenset(range(5))
_ENVIRONMENT_KEYS: Final = frozenset(range(3))
_MAX_NAME: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentClass:
    """What distinguishes one class of environments; at least one member is present.

    Attributes:
        class_id: tagged identifier, such as Tag(560, implementation id).
        vendor, model: names as the author writes them.
        layer: where in a sequence the environment exists.
        index: which of several clones.
    """

    class_id: Tag | None = None
    vendor: str | None = None
    model: str | None = None
    layer: int | None = None
    index: int | None = None

    def to_cbor(self) -> dict[int, object]:
        """Return the class-map."""
        members = (self.class_id, self.vendor, self.model, self.layer, self.index)
        return {key: value for key, value in enumerate(members) if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentMap:
    """An Attester, Attesting Environment or Target Environment; at least one member is present.

    Attributes:
        environment_class: the class, or None.
        instance: tagged identifier of one instance, such as Tag(550, UEID), or None.
        group: tagged identifier of a group of instances, or None.
    """

    environment_class: EnvironmentClass | None = None
    instance: Tag | None = None
    group: Tag | None = None

    def to_cbor(self) -> dict[int, object]:
        """Return the environment-map."""
        encoded = self.environment_class.to_cbor() if self.environment_class else None
        members = (encoded, self.instance, self.group)
        return {key: value for key, value in enumerate(members) if value is not None}


def decode_class(node: Node) -> EnvironmentClass:
    """Decode a class-map."""
    node.only(_CLASS_KEYS)
    class_id = node.optional(0, "class-id")
    vendor = node.optional(1, "vendor")
    model = node.optional(2, "model")
    layer = node.optional(3, "layer")
    index = node.optional(4, "index")
    if model and not vendor:
        raise model.error("a model without a vendor")
    return EnvironmentClass(
        class_id=decode_identifier(class_id) if class_id else None,
        vendor=vendor.text(maximum=_MAX_NAME) if vendor else None,
        model=model.text(maximum=_MAX_NAME) if model else None,
        layer=layer.unsigned() if layer else None,
        index=index.unsigned() if index else None,
    )


def decode_environment(node: Node) -> EnvironmentMap:
    """Decode an environment-map."""
    node.only(_ENVIRONMENT_KEYS)
    class_node = node.optional(0, "class")
    instance = node.optional(1, "instance")
    group = node.optional(2, "group")
    return EnvironmentMap(
        environment_class=decode_class(class_node) if class_node else None,
        instance=decode_identifier(instance) if instance else None,
        group=decode_identifier(group) if group else None,
    )
