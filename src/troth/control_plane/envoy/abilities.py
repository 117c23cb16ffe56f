# SPDX-License-Identifier: Apache-2.0
"""What an Envoy can do, found out by asking it to accept small configurations.

Asking is better than a table of versions: distributions leave extensions out. What is asked for is
what generated configurations use, one ability at a time only if all at once is not accepted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from troth.control_plane.envoy.bootstrap import agent_cluster, internal_listeners
from troth.control_plane.envoy.description import GateSetting
from troth.control_plane.envoy.gate import gate_filter, hop_address, hop_socket
from troth.control_plane.envoy.patch.listeners import ext_authz_filter
from troth.control_plane.envoy.patch.remarks import Tree
from troth.control_plane.envoy.static_secrets import NODE_SECRET, sds_secret

__all__ = ["Abilities", "Ability", "examine"]

_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters."
_TLS: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_AGENT: Final = Path("/run/troth/xds")
_GATE: Final = "/run/troth/gate"

_TESTED: Final = ("1.36.", "1.37.", "1.39.", "1.40.")
# What each profile cannot do without.
_NEEDS: Final = {
    "gate": ("sds", "spiffe", "internal", "early_data", "module", "descriptors"),
    "no-code": ("sds", "spiffe", "ext_authz", "descriptors"),
}


class Outcome(Protocol):
    """What Envoy said to one configuration; `troth.adapters.envoy_trial.Trial` is one."""

    @property
    def accepted(self) -> bool:
        """Whether it passed."""

    @property
    def reason(self) -> str:
        """Why not."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What it warned of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """One thing that an Envoy can or cannot do.

    Attributes:
        name: for programs.
        what: for people.
        present: whether it can.
        why: its own words why not.
    """

    name: str
    what: str
    present: bool
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Everything that was found out about one Envoy."""

    version: str
    abilities: Sequence[Ability]
    warnings: Sequence[str] = ()

    def can(self, profile: str) -> bool:
        """Whether it can take the profile "gate" or "no-code"."""
        present = {each.name for each in self.abilities if each.present}
        return present.issuperset(_NEEDS[profile])

    @property
    def profile(self) -> str:
        """The strongest profile that it can take: "gate", "no-code" or "none"."""
        return next((profile for profile in _NEEDS if self.can(profile)), "none")

    @property
    def profile_words(self) -> str:
        """The same for people."""
        return {
            "gate": "gate (a fresh proof on every connection, both directions)",
            "no-code": "no-code only (results in certificates; weaker, see docs/reference/envoy.md)",
            "none": "neither",
        }[self.profile]

    def to_json(self) -> dict[str, object]:
        """Return it for programs."""
        return {
            "version": self.version,
            "profile": self.profile,
            "abilities": {
                each.name: {"present": each.present} | ({"why": each.why} if each.why else {})
                for each in self.abilities
            },
            "warnings": list(self.warnings),
        }


def examine(
    version: str,
    *,
    module: Path,
    attempt: Callable[[Tree], Outcome],
    descriptors: str = "",
) -> Abilities:
    """Find out what the Envoy behind `attempt` can do.

    Args:
        version: as it says itself.
        module: the gate's; if it is absent nothing is said to load.
        attempt: lets Envoy check a configuration.
        descriptors: why its message types cannot be read, or "".
    """
    parts = _parts(module)
    whole = (
        attempt(_configuration(part for _, part in parts.values())) if module.is_file() else None
    )
    abilities = [
        Ability(
            name="descriptors",
            what="message types that the agent can read",
            present=not descriptors,
            why=descriptors,
        )
    ]
    untested = () if version.startswith(_TESTED) else (f"not tested with Envoy {version}",)
    warnings: dict[str, None] = dict.fromkeys(untested)
    warnings |= dict.fromkeys(whole.warnings if whole is not None else ())
    for name, (what, part) in parts.items():
        if name == "module" and not module.is_file():
            why = f"there is no module at {module}; from a checkout, `make gate` builds it"
            abilities.append(Ability(name=name, what=what, present=False, why=why))
            continue
        outcome = whole if whole is not None and whole.accepted else attempt(_configuration([part]))
        abilities.append(
            Ability(name=name, what=what, present=outcome.accepted, why=outcome.reason)
        )
        warnings |= dict.fromkeys(outcome.warnings)
    return Abilities(version=version, abilities=abilities, warnings=tuple(warnings))


def _parts(module: Path) -> dict[str, tuple[str, Tree]]:
    """Return each ability in words, and the listeners, clusters and extensions that show it."""
    tcp: Tree = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{_FILTERS}network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "preflight",
            "cluster": "troth-agent",
        },
    }
    waiting = copy.deepcopy(tcp)
    waiting["typed_config"] |= {
        "max_early_data_bytes": 65536,
        "upstream_connect_mode": "ON_DOWNSTREAM_DATA",
    }
    setting = GateSetting(module=str(module.absolute()), agent_socket=_GATE)
    tls = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}DownstreamTlsContext",
            "common_tls_context": {"tls_certificate_sds_secret_configs": [sds_secret(NODE_SECRET)]},
        },
    }
    return {
        "sds": ("secrets from the agent (SDS)", {"listeners": [_listener("sds", [tcp], tls)]}),
        "spiffe": (
            "Envoy's SPIFFE validator",
            {"listeners": [_listener("spiffe", [tcp], _spiffe_socket())]},
        ),
        "ext_authz": (
            "network ext_authz with the peer's certificate",
            {"listeners": [_listener("ext_authz", [ext_authz_filter(), tcp])]},
        ),
        "internal": (
            "internal listeners that know the chosen endpoint",
            {
                "listeners": [
                    {
                        "name": "hop",
                        "internal_listener": {},
                        "listener_filters": [
                            {
                                "name": "envoy.filters.listener.original_dst",
                                "typed_config": {
                                    "@type": f"{_FILTERS}listener.original_dst.v3.OriginalDst"
                                },
                            }
                        ],
                        "filter_chains": [{"filters": [tcp]}],
                    }
                ],
                "clusters": [_hop_cluster()],
                "extensions": internal_listeners(),
            },
        ),
        "early_data": (
            "tcp_proxy that waits for a decision (TCP services need it)",
            {"listeners": [_listener("early_data", [waiting])]},
        ),
        "filter_state": (
            "filter state that is set and logged (set_filter_state, access log)",
            {"listeners": [_listener("filter_state", [_set_filter_state(), tcp]) | _log()]},
        ),
        "module": (
            "dynamic modules, and the gate's module loads",
            {"listeners": [_listener("module", [gate_filter(setting, role="server"), tcp])]},
        ),
    }


def _configuration(parts: Iterable[Tree]) -> Tree:
    listeners: list[Any] = []
    clusters: list[Any] = [agent_cluster(_AGENT)]
    extensions: list[Any] = []
    for part in copy.deepcopy(list(parts)):
        listeners += part.get("listeners", [])
        clusters += part.get("clusters", [])
        extensions += part.get("extensions", [])
    for listener in listeners:
        if "internal_listener" not in listener:
            # Nothing listens while a configuration is only checked.
            listener["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {
        "node": {"id": "preflight", "cluster": "troth"},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "bootstrap_extensions": extensions,
    }


def _listener(name: str, filters: list[Any], socket: Tree | None = None) -> Tree:
    chain: Tree = {"filters": filters}
    if socket is not None:
        chain["transport_socket"] = socket
    return {"name": name, "filter_chains": [chain]}


def _spiffe_socket() -> Tree:
    validator = {
        "name": "envoy.tls.cert_validator.spiffe",
        "typed_config": {"@type": f"{_TLS}SPIFFECertValidatorConfig", "trust_domains": []},
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TLS}DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": {
                "tls_certificate_sds_secret_configs": [sds_secret(NODE_SECRET)],
                "validation_context": {"custom_validator_config": validator},
            },
        },
    }


def _hop_cluster() -> Tree:
    metadata = "envoy.filters.listener.original_dst"
    endpoint = {
        "endpoint": {"address": hop_address("hop", endpoint="127.0.0.1:1")},
        "metadata": {"filter_metadata": {metadata: {"local": "127.0.0.1:1"}}},
    }
    return {
        "name": "outer",
        "type": "STATIC",
        "transport_socket": hop_socket(endpoint_metadata=metadata),
        "load_assignment": {
            "cluster_name": "outer",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def _set_filter_state() -> Tree:
    value = {
        "object_key": "troth.preflight",
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": "yes"}},
    }
    return {
        "name": "envoy.filters.network.set_filter_state",
        "typed_config": {
            "@type": f"{_FILTERS}network.set_filter_state.v3.Config",
            "on_new_connection": [value],
        },
    }


def _log() -> Tree:
    return {
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": (
                        "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
                    ),
                    "path": "/dev/null",
                    "log_format": {"json_format": {"s": "%FILTER_STATE(troth.status:PLAIN)%"}},
                },
            }
        ]
    }
