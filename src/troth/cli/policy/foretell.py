# SPDX-License-Identifier: Apache-2.0
"""`troth policy replay`, `diff` and `export`: what a policy would change, from appraisals on record."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import click
import msgspec

from troth.cli.inputs import printable
from troth.cli.operators import admin_socket_option, ask_server, usual_admin_socket
from troth.cli.policy.differences import difference_report, difference_text
from troth.cli.policy_files import evaluator_for, read_policy
from troth.clock import SystemClock
from troth.errors import ConfigurationError, DecodeError
from troth.mesh.policy_messages import DifferencePage, PolicyName, PolicyOverview, RecordPage
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.recorded import MAX_RECORD_BYTES, RecordedAppraisal
from troth.verifier.replay import Change, Difference
from troth.verifier.replay import replay as replay_record

__all__ = ["Duration", "diff", "export", "replay"]

EXIT_OTHERWISE: Final = 1

_DEFAULT_SINCE: Final = 86_400
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[smhd])", re.ASCII)

P = TypeVar("P", RecordPage, DifferencePage)


class Duration(click.ParamType[int]):
    """A length of time, in whole seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the seconds of a text such as 90s, 30m, 24h or 7d."""
        if isinstance(value, int):
            return value
        match = _DURATION.fullmatch(str(value))
        if match is None:
            self.fail(
                f"{value!r}: expected a length of time such as 90s, 30m, 24h or 7d", param, ctx
            )
        return int(match["number"]) * _UNITS[match["unit"]]


_since_option = click.option(
    "--since",
    type=Duration(),
    metavar="DURATION",
    help="How far back, such as 90s, 24h or 7d. Default: 24h, or everything in --records.",
)
_format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    help="Default: text on a terminal, json elsewhere.",
)


@click.command()
@click.argument("new_policy", metavar="NEW.rego")
@_since_option
@admin_socket_option(
    "Ask this server, which evaluates NEW.rego on its records. Default: TROTH_ADMIN_SOCKET, or the "
    "usual one."
)
@click.option(
    "--records", metavar="FILE", help="Instead of a server's, the records of this export."
)
@_format_option
@click.pass_context
def replay(
    ctx: click.Context,
    new_policy: str,
    *,
    since: int | None,
    admin_socket: str | None,
    records: str | None,
    output: str | None,
) -> None:
    r"""Say what NEW.rego would have concluded about what was appraised, before it is applied.

    Nothing is changed. Each record stands for equal appraisals of one device; everything but the
    policy is as it was at the time.

    \b
    Exit status:
      0  no status and no tier would have been another
      1  some would
      2  the server cannot be asked, or NEW.rego would give no verdict at all
      3  wrong usage
    """
    policy = read_policy(new_policy)
    _require_sound(policy)
    found: Iterable[Difference]
    if records is not None:
        if admin_socket is not None:
            raise click.UsageError("--records and --admin-socket exclude each other")
        found = _replayed(policy, _read_export(records, since))
    else:
        socket = admin_socket or usual_admin_socket()
        _require_recording(socket)
        pages = _pages(
            socket,
            "/v1/policy/replay",
            DifferencePage,
            since=since,
            post=policy.source.text.encode(),
            name=policy.source.name,
        )
        found = (each for page in pages for each in page.differences)
    _finish(ctx, PolicyName.of(policy, source=new_policy), found, output)


@click.command()
@_since_option
@admin_socket_option("Ask this server. Default: TROTH_ADMIN_SOCKET, or the usual one.")
@_format_option
@click.pass_context
def diff(
    ctx: click.Context, *, since: int | None, admin_socket: str | None, output: str | None
) -> None:
    r"""Say where the policy that a server audits concluded otherwise than the enforced one.

    That is the policy of verifier.audit_policy, or with mode = "audit" the one of verifier.policy.

    \b
    Exit status:
      0  no status and no tier was another
      1  some were
      2  the server cannot be asked, or audits no policy
      3  wrong usage
    """
    socket = admin_socket or usual_admin_socket()
    overview = _require_recording(socket)
    pages = _pages(socket, "/v1/policy/differences", DifferencePage, since=since)
    # Without an audited policy, the first page is the server's refusal.
    differences = [each for page in pages for each in page.differences]
    candidate = overview.candidate
    if candidate is None:
        raise DecodeError("it names no audited policy", format="reply to /v1/policy")
    _finish(ctx, candidate, differences, output)


@click.command()
@_since_option
@admin_socket_option("Ask this server. Default: TROTH_ADMIN_SOCKET, or the usual one.")
@click.option("--output", "-o", "path", required=True, metavar="FILE", help="New file to write.")
@click.option(
    "--cases",
    is_flag=True,
    help="Write test cases for troth policy test, expecting what was concluded.",
)
def export(*, since: int | None, admin_socket: str | None, path: str, cases: bool) -> None:
    """Write appraisals on record to a file, for troth policy replay --records or as test cases.

    Records hold claims, which identify devices: keep the file as you keep the registry.
    """
    socket = admin_socket or usual_admin_socket()
    _require_recording(socket)
    pages = _pages(socket, "/v1/policy/records", RecordPage, since=since)
    found = (record for page in pages for record in page.records)
    if cases:
        written = [_as_case(record) for record in found]
        content = msgspec.json.format(msgspec.json.encode({"cases": written}), indent=2) + b"\n"
        count = len(written)
    else:
        lines = [msgspec.json.encode(record) for record in found]
        content, count = b"".join(line + b"\n" for line in lines), len(lines)
    _write_new(Path(path), content)
    click.echo(f"{count} on record, written to {printable(path)}", err=True)


def _require_sound(policy: AppraisalPolicy) -> None:
    with evaluator_for() as evaluator:
        defects = policy.check(evaluator)
    if defects:
        found = "; ".join(f"{defect.actual} ({defect.rule})" for defect in defects)
        raise DecodeError(
            found, format="Appraisal Policy", remedy="Correct it; troth policy lint says the same."
        )


def _require_recording(socket: str) -> PolicyOverview:
    overview = ask_server(socket, "/v1/policy", kind=PolicyOverview)
    if not overview.recording:
        raise ConfigurationError(
            source=f"the server at {socket}",
            key="limits.kept_appraisals",
            value="0",
            accepted="a number of appraisals to keep on record",
        )
    return overview


def _pages(
    socket: str,
    path: str,
    kind: type[P],
    *,
    since: int | None,
    post: bytes | None = None,
    **query: str,
) -> Iterator[P]:
    """Yield all pages."""
    after = ""
    while True:
        page = ask_server(
            socket,
            path,
            kind=kind,
            post=post,
            since=_DEFAULT_SINCE if since is None else since,
            after=after,
            **query,
        )
        yield page
        after = page.next
        if not after:
            return


def _replayed(
    policy: AppraisalPolicy, records: Iterable[RecordedAppraisal]
) -> Iterator[Difference]:
    with evaluator_for() as evaluator:
        for record in records:
            yield replay_record(record, policy, evaluator)


def _read_export(path: str, since: int | None) -> Iterator[RecordedAppraisal]:
    decoder = msgspec.json.Decoder(RecordedAppraisal)
    oldest = None if since is None else SystemClock().now().timestamp() - since
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(
                iter(lambda: file.readline(2 * MAX_RECORD_BYTES), b""), 1
            ):
                try:
                    record = decoder.decode(line)
                except msgspec.DecodeError as exc:
                    raise ConfigurationError(
                        source=f"{path}:{number}",
                        accepted=f"a record of troth policy export ({exc})",
                    ) from exc
                if oldest is None or record.last.timestamp() >= oldest:
                    yield record
    except OSError as exc:
        raise ConfigurationError(
            source=path, accepted=f"a readable file ({exc.strerror or exc})"
        ) from exc


def _as_case(record: RecordedAppraisal) -> dict[str, object]:
    outcome = record.outcome
    return {
        "name": f"{record.device or record.scheme} as of {record.last:%Y-%m-%dT%H:%M:%SZ} "
        f"(record {record.id[:16]})",
        "case": record.cases[0] if len(record.cases) == 1 else record.cases,
        "expect": {"status": outcome.status, "tier": outcome.tier, "failed": outcome.failed},
    }


def _write_new(path: Path, content: bytes) -> None:
    try:
        # Claims identify devices.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"a new file that can be written ({exc.strerror or exc})"
        ) from exc


def _finish(
    ctx: click.Context, policy: PolicyName, found: Iterable[Difference], output: str | None
) -> None:
    differences = list(found)
    if output == "json" or (output is None and not sys.stdout.isatty()):
        click.echo(json.dumps(difference_report(policy, differences), indent=2))
    else:
        click.echo("\n".join(difference_text(policy, differences)))
    otherwise = any(each.change in (Change.STRICTER, Change.LOOSER) for each in differences)
    ctx.exit(EXIT_OTHERWISE if otherwise else 0)
