# SPDX-License-Identifier: Apache-2.0
"""A whole existing configuration: what is patched, in which order, and what comes along.

Pure: the same input gives the same output, and the output given again comes out unchanged.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from troth.control_plane.envoy.bootstrap import AGENT_CLUSTER, agent_cluster, internal_listeners
from troth.control_plane.envoy.patch.clusters import hop_of, patch_cluster
from troth.control_plane.envoy.patch.listeners import patch_listener
from troth.control_plane.envoy.patch.remarks import Kind, Remark, Remarks, Tree, objects
from troth.control_plane.envoy.patch.wish import PatchWish
from troth.errors import ConfigurationError

__all__ = ["Patched", "patch"]

# protobuf's JSON mapping takes both spellings; one is enough to support.
_CAMEL: Final = frozenset(
    {"staticResources", "filterChains", "transportSocket", "typedConfig", "commonTlsContext"}
)
_MAX_NODES: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Patched:
    """What came out.

    Attributes:
        config: the new configuration; None where something in it is insecure.
        remarks: what was found, place by place.
    """

    config: Tree | None
    remarks: tuple[Remark, ...]

    def of_kind(self, kind: Kind) -> tuple[Remark, ...]:
        """Return the remarks of one kind."""
        return tuple(remark for remark in self.remarks if remark.kind is kind)


def patch(config: Tree, wish: PatchWish, *, source: str = "Envoy configuration") -> Patched:
    """Return `config` with attestation; `config` itself is not changed.

    Checks what would undo attestation, not whether Envoy accepts the rest: that is
    `envoy --mode validate`'s to say.

    Raises:
        ConfigurationError: it is no bootstrap with static resources, in snake_case.
    """
    _check_form(config, source)
    try:
        return _patch(config, wish, source)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        # A field of a type that Envoy does not take either; it says better which one.
        raise ConfigurationError(
            source=source, accepted="what `envoy --mode validate` accepts"
        ) from exc


def _patch(config: Tree, wish: PatchWish, source: str) -> Patched:
    new = copy.deepcopy(config)
    static = new.get("static_resources")
    if not isinstance(static, dict):
        raise ConfigurationError(
            source=source,
            key="static_resources",
            accepted="an Envoy bootstrap whose listeners and clusters stand in it",
        )
    remarks = Remarks()
    _look_at_dynamic(new, remarks)
    listeners = objects(static, "listeners", source)
    for listener in listeners:
        if listener.get("name") not in wish.leave:
            patch_listener(listener, wish, remarks)
    clusters, hops = _clusters(objects(static, "clusters", source), listeners, wish, remarks)
    found = tuple(remarks.found)
    if any(remark.kind is Kind.INSECURE for remark in found):
        return Patched(None, found)
    if not any(remark.kind is Kind.PATCHED for remark in found):
        return Patched(config, found)
    static["clusters"] = [*clusters, agent_cluster(wish.xds_socket)]
    if listeners or hops:
        static["listeners"] = [*listeners, *hops]
    node = new.setdefault("node", {})
    node.setdefault("id", wish.node_id)
    node.setdefault("cluster", "troth")
    if wish.gate is not None and _has_hops(static):
        _add_extension(new)
    return Patched(new, found)


def _clusters(
    clusters: list[Tree], listeners: list[Tree], wish: PatchWish, remarks: Remarks
) -> tuple[list[Tree], list[Tree]]:
    names = {listener.get("name") for listener in listeners}
    inner = {hop_of(str(each.get("name"))) for each in clusters} & names
    out: list[Tree] = []
    hops: list[Tree] = []
    for cluster in clusters:
        name = cluster.get("name")
        if name == AGENT_CLUSTER:
            continue
        if name in wish.leave or name in inner:
            out.append(cluster)
            continue
        if hop_of(str(name)) in names:
            remarks.patched(f"cluster {name}", "the gate, as before")
            if wish.gate is None:
                remarks.left(
                    f"cluster {name}",
                    "it was made for the gate",
                    "begin with the configuration as it was before it was patched",
                )
        replaced, listener = patch_cluster(cluster, wish, remarks)
        out += replaced
        hops += listener
    return out, hops


def _look_at_dynamic(config: Tree, remarks: Remarks) -> None:
    dynamic = config.get("dynamic_resources") or {}
    for key, what in (("lds_config", "listeners"), ("cds_config", "clusters")):
        if dynamic.get(key):
            remarks.left(
                f"dynamic_resources.{key}",
                f"{what} that come from a control plane are not in this file",
                "let the agent configure an Envoy of its own (troth envoy bootstrap), or have the"
                " control plane put the gate in",
            )


def _has_hops(static: Tree) -> bool:
    return any(
        str(each.get("name", "")).startswith(hop_of("")) and "internal_listener" in each
        for each in static.get("listeners") or []
    )


def _add_extension(config: Tree) -> None:
    (extension,) = internal_listeners()
    there = config.setdefault("bootstrap_extensions", [])
    if all(each.get("name") != extension["name"] for each in there):
        there.append(extension)


def _check_form(config: Tree, source: str) -> None:
    left = _MAX_NODES
    pending: list[Any] = [config]
    while pending:
        left -= 1
        if left < 0:
            raise ConfigurationError(source=source, accepted=f"at most {_MAX_NODES} values")
        each = pending.pop()
        if isinstance(each, dict):
            camel = sorted(_CAMEL & each.keys())
            if camel:
                raise ConfigurationError(
                    source=source,
                    key=camel[0],
                    accepted="field names in snake_case, as in Envoy's documentation",
                )
            pending.extend(each.values())
        elif isinstance(each, list):
            pending.extend(each)
