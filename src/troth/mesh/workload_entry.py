# SPDX-License-Identifier: Apache-2.0
"""Registration entries for workloads: which process on which nodes gets which SPIFFE ID.

The vocabulary is SPIRE's. An entry hangs below a *parent*: the nodes that may issue by it.

========================================= =====================================================
parent_id                                 on which nodes
========================================= =====================================================
spiffe://DOMAIN/edge                      every node that joined as spiffe://DOMAIN/edge, and
                                          every node that an alias of that name names
spiffe://DOMAIN/troth/node/NODE_ID        this one node
spiffe://DOMAIN/troth/server              none: the entry is an *alias*, another name for all
                                          nodes that have its selectors
========================================= =====================================================

Selectors of type `troth` are about the node and are the server's to find out; all others are about
the process and are the agent's. An entry wants all of its selectors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from troth.errors import ApiMisuseError, DecodeError
from troth.identity.certificate_fields import checked_dns_names
from troth.identity.selector import Selector
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.mesh.node_record import NodeRecord
from troth.mesh.tier import Tier

__all__ = [
    "MAX_FEDERATES_WITH",
    "MAX_HINT_CHARACTERS",
    "MAX_TTL",
    "MAX_WORKLOAD_SELECTORS",
    "NODE_PATH",
    "NODE_SELECTOR_TYPE",
    "SERVER_PATH",
    "WORKLOAD_SELECTOR_FORMS",
    "WorkloadEntry",
    "node_properties",
    "parse_trust_domain",
    "refused_field",
]

MAX_WORKLOAD_SELECTORS: Final = 32
MAX_FEDERATES_WITH: Final = 32
MAX_HINT_CHARACTERS: Final = 256
MAX_TTL: Final = timedelta(days=365)

SERVER_PATH: Final = "/troth/server"
"""Path of the server's own SPIFFE ID, which is the parent of aliases."""

NODE_PATH: Final = "/troth/node/"
"""Path prefix of the name of one node as a parent."""

NODE_SELECTOR_TYPE: Final = "troth"

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,9}")
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,254}\$?")
_HEX_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PATH: Final = re.compile(r"/[^\x00-\x1f\x7f]{1,1000}")
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.@\\-]{1,255}\.(service|scope)")
_POD: Final = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")

WORKLOAD_SELECTOR_FORMS: Final = {
    "unix:uid": (_NUMBER, "unix:uid:NUMBER"),
    "unix:gid": (_NUMBER, "unix:gid:NUMBER"),
    "unix:user": (_WORD, "unix:user:NAME"),
    "unix:group": (_WORD, "unix:group:NAME"),
    "unix:supplementary_gid": (_NUMBER, "unix:supplementary_gid:NUMBER"),
    "unix:supplementary_group": (_WORD, "unix:supplementary_group:NAME"),
    "unix:path": (_PATH, "unix:path:/ABSOLUTE/PATH of the program"),
    "unix:sha256": (_HEX_DIGEST, "unix:sha256:HEX of the program, in lower case"),
    "systemd:id": (_UNIT, "systemd:id:NAME.service"),
    "docker:container_id": (_HEX_DIGEST, "docker:container_id:64 hexadecimal digits"),
    "k8s:pod-uid": (_POD, "k8s:pod-uid:UUID"),
    "k8s:container_id": (_HEX_DIGEST, "k8s:container_id:64 hexadecimal digits"),
}
"""What agents find out about a process: pattern and form by type and first word of the value."""

_TIERS: Final = "|".join(tier.value for tier in Tier)
_NODE_FORMS: Final = {
    "tier": (re.compile(_TIERS), f"troth:tier:({_TIERS}), at least"),
    "scheme": (re.compile(r"[a-z][a-z0-9_]{0,31}"), "troth:scheme:NAME, such as psa"),
    "policy": (re.compile(r"\S{1,256}"), "troth:policy:ID of the Appraisal Policy"),
    "policy_digest": (_HEX_DIGEST, "troth:policy_digest:SHA-256 of the Appraisal Policy"),
    "node": (re.compile(r"[A-Za-z0-9._-]{1,64}"), "troth:node:NODE_ID"),
    "entry": (re.compile(r"[a-z0-9][a-z0-9._-]{0,62}"), "troth:entry:ID that the node joined by"),
}


def refused_field(field: str, reason: str, *, remedy: str = "") -> DecodeError:
    """Return the refusal of one field of an entry."""
    return DecodeError(reason, format=f"field {field}", remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadEntry:
    """Processes with all `selectors` on the nodes below `parent_id` are `spiffe_id`; or an alias.

    Attributes:
        id: the registry's name for it.
        spiffe_id: who they are: a SPIFFE ID with a path, not one of Troth's own.
        parent_id: on which nodes; see the table above.
        selectors: all have to hold. One at least is about the process, or in an alias all are
            about the node.
        x509_svid_ttl, jwt_svid_ttl: wanted lifetimes, whole seconds; None for the server's default.
            Neither outlives the Attestation Result of the node.
        dns_names: go into the X.509-SVID beside the SPIFFE ID.
        federates_with: trust domains whose bundles the workload gets.
        hint: tells a workload with several identities what this one is for.

    Raises:
        DecodeError: naming the field and the reason.
    """

    id: str
    spiffe_id: str
    parent_id: str
    selectors: tuple[Selector, ...]
    x509_svid_ttl: timedelta | None = None
    jwt_svid_ttl: timedelta | None = None
    dns_names: tuple[str, ...] = ()
    federates_with: tuple[str, ...] = ()
    hint: str = ""

    def __post_init__(self) -> None:
        own = _identity("spiffe_id", self.spiffe_id)
        parent = _identity("parent_id", self.parent_id)
        if own.path.startswith("/troth/"):
            raise refused_field("spiffe_id", f"{own} is for Troth's own parts, not for workloads")
        if parent.trust_domain != own.trust_domain:
            raise refused_field("parent_id", f"{parent} is of another trust domain than {own}")
        if parent == own:
            raise refused_field("parent_id", f"{parent} cannot be its own parent")
        if parent.path.startswith("/troth/") and not (
            parent.path == SERVER_PATH or parent.path.startswith(NODE_PATH)
        ):
            raise refused_field("parent_id", f"{parent} is neither a node nor the server")
        self._check_selectors()
        for name in ("x509_svid_ttl", "jwt_svid_ttl"):
            _check_ttl(name, getattr(self, name))
        self._check_names(own.trust_domain)
        if self.is_alias:
            self._check_alias()

    def _check_selectors(self) -> None:
        if len(self.selectors) > MAX_WORKLOAD_SELECTORS:
            raise refused_field("selectors", f"more than {MAX_WORKLOAD_SELECTORS}")
        if len(set(self.selectors)) < len(self.selectors):
            raise refused_field("selectors", "one occurs twice")
        for selector in self.selectors:
            _check_selector(selector)
        if not self.is_alias and not self.process_selectors:
            raise refused_field(
                "selectors",
                "every process on the node would be this workload",
                remedy="add a selector of the process, such as unix:uid or unix:path",
            )

    def _check_names(self, own: TrustDomain) -> None:
        try:
            checked_dns_names(self.dns_names)
        except ApiMisuseError as exc:
            raise refused_field("dns_names", str(exc)) from exc
        if len(self.federates_with) > MAX_FEDERATES_WITH:
            raise refused_field("federates_with", f"more than {MAX_FEDERATES_WITH}")
        for name in self.federates_with:
            try:
                foreign = TrustDomain(name)
            except DecodeError as exc:
                raise refused_field("federates_with", str(exc)) from exc
            if foreign == own:
                raise refused_field("federates_with", f"{name} is the workload's own trust domain")
        if len(self.hint) > MAX_HINT_CHARACTERS or not (self.hint.isprintable() or self.hint == ""):
            raise refused_field("hint", f"not printable, or over {MAX_HINT_CHARACTERS} characters")

    def _check_alias(self) -> None:
        if self.process_selectors or not self.selectors:
            raise refused_field(
                "selectors",
                "an alias of nodes has selectors of nodes",
                remedy="use troth:tier, troth:scheme and the like, or another parent_id",
            )
        for field in ("x509_svid_ttl", "jwt_svid_ttl", "dns_names", "federates_with"):
            if getattr(self, field):
                raise refused_field(field, "an alias names nodes and gets no SVID")

    @property
    def is_alias(self) -> bool:
        """Say whether this is another name for nodes, and no workload."""
        return SpiffeId.decode(self.parent_id).path == SERVER_PATH

    @property
    def node_selectors(self) -> frozenset[Selector]:
        """The selectors that are about the node."""
        return frozenset(each for each in self.selectors if each.type == NODE_SELECTOR_TYPE)

    @property
    def process_selectors(self) -> frozenset[Selector]:
        """The selectors that are about the process."""
        return frozenset(each for each in self.selectors if each.type != NODE_SELECTOR_TYPE)


def parse_trust_domain(text: str) -> TrustDomain:
    """Read a trust domain, as a name or as SPIFFE ID without a path.

    Raises:
        DecodeError: neither.
    """
    if not text.startswith("spiffe:"):
        return TrustDomain(text)
    spiffe_id = SpiffeId.decode(text)
    if spiffe_id.path:
        raise DecodeError(f"{text[:128]!r} has a path", format="trust domain")
    return spiffe_id.trust_domain


def node_properties(node: NodeRecord) -> frozenset[Selector]:
    """Return what the server vouches for about a node. A tier includes those below it.

    The node's name for itself is not among them.
    """
    properties = {f"node:{node.id}", f"entry:{node.entry_id}"}
    if node.appraised is not None:
        result = node.appraised.result
        properties |= {f"tier:{tier.value}" for tier in Tier if tier <= result.tier}
        properties |= {f"scheme:{node.appraised.scheme}", f"policy:{result.policy_id}"}
        if result.policy_digest:
            properties.add(f"policy_digest:{result.policy_digest}")
    return frozenset(Selector(NODE_SELECTOR_TYPE, text) for text in properties)


def _identity(field: str, text: str) -> SpiffeId:
    try:
        spiffe_id = SpiffeId.decode(text)
    except DecodeError as exc:
        raise refused_field(field, str(exc)) from exc
    if not spiffe_id.path:
        raise refused_field(field, f"{spiffe_id} has no path")
    return spiffe_id


def _check_selector(selector: Selector) -> None:
    first, _, rest = selector.value.partition(":")
    if selector.type == NODE_SELECTOR_TYPE:
        found = _NODE_FORMS.get(first)
        forms = [form for _, form in _NODE_FORMS.values()]
    else:
        found = WORKLOAD_SELECTOR_FORMS.get(f"{selector.type}:{first}")
        forms = [form for _, form in WORKLOAD_SELECTOR_FORMS.values()]
    if found is None:
        raise refused_field(
            "selectors",
            f"no agent finds out {str(selector)[:128]!r}",
            remedy=f"known are {'; '.join(forms)}",
        )
    pattern, form = found
    if not pattern.fullmatch(rest):
        raise refused_field("selectors", f"{str(selector)[:128]!r} is not {form}")


def _check_ttl(field: str, ttl: timedelta | None) -> None:
    if ttl is None:
        return
    if not timedelta(seconds=1) <= ttl <= MAX_TTL or ttl.microseconds:
        raise refused_field(
            field, f"{ttl.total_seconds():g} is not 1 to {MAX_TTL.total_seconds():.0f} seconds"
        )
