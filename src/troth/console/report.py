# SPDX-License-Identifier: Apache-2.0
"""The report of one run: who talked to whom, in what state, and what happened when.

The values come from the running parts; this module only arranges them. The HTML is one file that
loads nothing from anywhere.
"""

from __future__ import annotations

from typing import Literal

import jinja2
import msgspec

__all__ = [
    "ConnectionEnd",
    "DirectionReport",
    "FindingReport",
    "NodeReport",
    "PeerView",
    "RefusalReport",
    "Report",
    "StepReport",
    "TimelineEntry",
    "WithdrawalReport",
    "render_html",
    "render_json",
]


class PeerView(msgspec.Struct, frozen=True, kw_only=True):
    """What one Envoy saw of its peer: read from its access log.

    Attributes:
        spiffe_id: in the certificate that TLS verified.
        scheme, status, tier, verifier: of the result; status is "none" and the others are empty
            where this side asked for none.
        binding: what ties identity and result to this connection.
        result_age_seconds: how old the result was; None without one.
        tls_version: such as "TLSv1.3".
        insecure: why it would not count in production.
        fresh: the result is newer than the one in the peer's certificate: it was made for this
            side, from Evidence that it asked for.
    """

    spiffe_id: str
    scheme: str
    status: str
    tier: str
    binding: str
    result_age_seconds: float | None
    verifier: str
    tls_version: str
    insecure: tuple[str, ...] = ()
    fresh: bool = False


class DirectionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One call through both Envoys."""

    caller: str
    callee: str
    protocol: str
    outcome: str
    client_saw: PeerView
    server_saw: PeerView


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One node as the run ended."""

    name: str
    role: str
    scheme: str
    spiffe_id: str
    state: str
    status: str
    tier: str
    joined_milliseconds: float | None = None
    note: str = ""


class FindingReport(msgspec.Struct, frozen=True, kw_only=True):
    """One reason for a refusal."""

    claim: str
    expected: str
    actual: str
    rule: str
    remedy: str
    severity: str = "contraindicated"


class RefusalReport(msgspec.Struct, frozen=True, kw_only=True):
    """A node that was not let in, and why."""

    node: str
    refusal_id: str
    detail: str
    findings: tuple[FindingReport, ...]


class ConnectionEnd(msgspec.Struct, frozen=True, kw_only=True):
    """An open connection that the withdrawal ended."""

    what: str
    milliseconds: float
    bound_milliseconds: float
    observed: str


class WithdrawalReport(msgspec.Struct, frozen=True, kw_only=True):
    """A Reference Value taken back while connections were open."""

    reference_value: str
    node: str
    ends: tuple[ConnectionEnd, ...]
    after: str


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """One thing the run had to show."""

    title: str
    passed: bool
    detail: str = ""


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of the run."""

    seconds: float
    kind: Literal["start", "join", "call", "refuse", "withdraw", "end"]
    text: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything in `report.json`."""

    title: str
    generated_at: str
    seconds: float
    trust_domain: str
    versions: dict[str, str]
    insecure: tuple[str, ...]
    nodes: tuple[NodeReport, ...]
    directions: tuple[DirectionReport, ...]
    refusals: tuple[RefusalReport, ...]
    withdrawal: WithdrawalReport | None
    steps: tuple[StepReport, ...]
    timeline: tuple[TimelineEntry, ...]

    @property
    def passed(self) -> bool:
        """Whether every step of the run was seen to happen."""
        return bool(self.steps) and all(step.passed for step in self.steps)


def render_json(report: Report) -> bytes:
    """Return the report as indented JSON with `passed` on top."""
    tree = {"passed": report.passed, **msgspec.to_builtins(report)}
    return msgspec.json.format(msgspec.json.encode(tree), indent=2) + b"\n"


def render_html(report: Report) -> str:
    """Return the report as one self-contained page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("troth.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(report=report)
