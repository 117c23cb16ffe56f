# SPDX-License-Identifier: Apache-2.0
"""What the demo prints: progress while it works, and one screen at the end."""

from __future__ import annotations

import time
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from troth.console.report import DirectionReport, FindingReport, PeerView, Report

__all__ = ["Printer"]

_TONES = {"affirming": "green", "warning": "yellow", "contraindicated": "red"}


class Printer:
    """Writes to standard output; colours only on a terminal."""

    def __init__(self) -> None:
        console = Console(highlight=False)
        # A pipe has no width of its own; the table needs about this much.
        self._console = console if console.is_terminal else Console(highlight=False, width=120)
        self._began = time.monotonic()

    def progress(self, text: str) -> None:
        """Say what is going on."""
        self._console.print(f"[dim]{time.monotonic() - self._began:5.1f} s[/]  {text}")

    def direction(self, direction: DirectionReport) -> None:
        """Say what the two Envoys saw of each other."""
        for name, seen in (
            (direction.caller, direction.client_saw),
            (direction.callee, direction.server_saw),
        ):
            tone = _TONES.get(seen.status, "default")
            self._line(
                f"         {name}'s Envoy saw [bold]{seen.spiffe_id}[/] over {seen.tls_version}"
            )
            if seen.result_age_seconds is None:
                self._line(f"           its identity was enough; binding {seen.binding}")
                continue
            how = "made for this connection" if seen.fresh else f"{_age(seen)} old"
            self._line(
                f"           {seen.scheme}, [{tone}]{seen.status}[/], tier {seen.tier}, binding "
                f"{seen.binding}, result {how}, Verifier {seen.verifier}"
            )

    def interrupted(self) -> None:
        """Say that it was stopped."""
        self._console.print("\ninterrupted: everything was stopped")

    def outcome(self, report: Report, directory: Path) -> None:
        """Print the one-screen summary."""
        self._console.print()
        self._console.print(self._directions(report))
        for refusal in report.refusals:
            self._console.print(
                f"\n[bold]{refusal.node}[/] was [red]refused[/] (refusal {refusal.refusal_id})"
            )
            for finding in refusal.findings:
                if finding.severity != "note":
                    self._finding(finding)
        if report.withdrawal is not None:
            self._line(
                f"\nReference Value [bold]{report.withdrawal.reference_value}[/] withdrawn while "
                "connections were open:"
            )
            for end in report.withdrawal.ends:
                self._console.print(
                    f"  {end.what:<22} ended after [bold]{end.milliseconds:6.0f} ms[/]"
                    f"   (bound {end.bound_milliseconds:.0f} ms)"
                )
            self._console.print(f"  {report.withdrawal.after}")
        self._console.print()
        for step in report.steps:
            mark = "[green]✓[/]" if step.passed else "[red]✗[/]"
            detail = f": {step.detail}" if step.detail and not step.passed else ""
            self._line(f"{mark} {step.title}{escape(detail)}")
        if report.insecure:
            self._console.print(f"[yellow]insecure by choice: {', '.join(report.insecure)}[/]")
        self._console.print(
            f"\n{report.seconds:.1f} s · {directory / 'report.html'} · {directory / 'report.json'}"
        )

    def _directions(self, report: Report) -> Table:
        table = Table(
            title=f"What the Envoys saw of each other in spiffe://{report.trust_domain}",
            title_justify="left",
            box=SIMPLE_HEAD,
        )
        for column in ("call", "seen by", "peer", "scheme", "status", "tier"):
            table.add_column(column, overflow="fold", no_wrap=column == "call")
        for column in ("binding", "age", "Verifier"):
            table.add_column(column, overflow="fold", no_wrap=column == "age")
        for direction in report.directions:
            call = f"{direction.caller} → {direction.callee} {direction.protocol}"
            prefix = f"spiffe://{report.trust_domain}"
            table.add_row(call, direction.caller, *_cells(direction.client_saw, prefix))
            table.add_row("", direction.callee, *_cells(direction.server_saw, prefix))
        return table

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _finding(self, finding: FindingReport) -> None:
        self._line(f"  [bold]{escape(finding.claim)}[/]")
        for name in ("expected", "actual", "rule", "remedy"):
            label = "what to do" if name == "remedy" else name
            self._line(f"    {label:<11}{escape(getattr(finding, name))}")


def _age(view: PeerView) -> str:
    return "-" if view.result_age_seconds is None else f"{view.result_age_seconds:.1f} s"


def _cells(view: PeerView, prefix: str) -> tuple[str, ...]:
    tone = _TONES.get(view.status, "default")
    return (
        view.spiffe_id.removeprefix(prefix),
        view.scheme,
        f"[{tone}]{view.status}[/]",
        view.tier,
        view.binding,
        f"{_age(view)}, fresh" if view.fresh else _age(view),
        view.verifier,
    )
