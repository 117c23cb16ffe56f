# SPDX-License-Identifier: Apache-2.0
"""Operators' routes about the Appraisal Policy: what is in force, what is on record, replay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth.clock import Clock
from troth.control_plane.server.requests import query_number, read_body
from troth.control_plane.server.worker import Worker
from troth.errors import ConflictError, DecodeError, LimitExceededError
from troth.mesh.policy_messages import DifferencePage, PolicyName, PolicyOverview, RecordPage
from troth.mesh.registry import Registry
from troth.verifier.policy import MAX_POLICY_BYTES, AppraisalPolicy
from troth.verifier.recorded import RecordedAppraisal
from troth.verifier.rego import RegoEvaluator
from troth.verifier.replay import Difference, difference, replay

__all__ = ["MAX_PAGE", "MAX_SINCE_SECONDS", "PolicyDesk", "policy_routes"]

MAX_PAGE: Final = 500
"""Records that one reply is about."""

MAX_SINCE_SECONDS: Final = 366 * 86_400
_DEFAULT_SINCE_SECONDS: Final = 86_400
_REPLAY_SECONDS: Final = 15.0
_MAX_NAME: Final = 128


class PolicyDesk:
    """What the routes work with.

    Args:
        registry, registry_worker: records, and the one thread that they are read from.
        replays: one thread of its own: a replay takes one processor and no join's place.
        evaluator: evaluates the policy that is tried.
        overview: what is in force.
        clock: time.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        registry_worker: Worker,
        replays: Worker,
        evaluator: RegoEvaluator,
        overview: PolicyOverview,
        clock: Clock,
    ) -> None:
        self.overview = overview
        self._registry, self._registry_worker = registry, registry_worker
        self._replays, self._evaluator, self._clock = replays, evaluator, clock

    async def records(self, *, since: datetime, after: str, limit: int) -> RecordPage:
        """Return records by their ids."""
        found = await self._registry_worker.run(
            self._registry.appraisals, since=since, after=after, limit=limit
        )
        return RecordPage(records=list(found), next=_next(found, limit))

    async def differences(self, *, since: datetime, after: str, limit: int) -> DifferencePage:
        """Return how the candidate concluded; appraisals that it was not asked about are skipped.

        Raises:
            ConflictError: there is no candidate.
        """
        candidate = self.overview.candidate
        if candidate is None:
            raise ConflictError(
                "no policy is audited",
                remedy='set verifier.audit_policy, or verifier.mode = "audit"',
            )
        page = await self.records(since=since, after=after, limit=limit)
        found = [
            difference(record, record.candidate)
            for record in page.records
            if record.candidate is not None and record.candidate.policy_digest == candidate.digest
        ]
        return DifferencePage(
            policy=candidate,
            differences=found,
            skipped=len(page.records) - len(found),
            next=page.next,
        )

    async def replay(
        self, policy: AppraisalPolicy, *, since: datetime, after: str, limit: int
    ) -> DifferencePage:
        """Conclude records again under `policy`; the page ends early where that takes long."""
        page = await self.records(since=since, after=after, limit=limit)
        found = await self._replays.run(self._replay, policy, page.records)
        early = len(found) < len(page.records)
        return DifferencePage(
            policy=PolicyName.of(policy),
            differences=found,
            next=found[-1].id if early else page.next,
        )

    def _replay(
        self, policy: AppraisalPolicy, records: list[RecordedAppraisal]
    ) -> list[Difference]:
        until = self._clock.monotonic() + _REPLAY_SECONDS
        found: list[Difference] = []
        for record in records:
            found.append(replay(record, policy, self._evaluator))
            if self._clock.monotonic() >= until:
                break
        return found


def policy_routes(desk: PolicyDesk, *, clock: Clock) -> list[Route]:
    """Return the routes."""

    async def overview(_: Request) -> Response:
        return _json(desk.overview)

    async def records(request: Request) -> Response:
        since, after, limit = _span(request, clock)
        return _json(await desk.records(since=since, after=after, limit=limit))

    async def differences(request: Request) -> Response:
        since, after, limit = _span(request, clock)
        return _json(await desk.differences(since=since, after=after, limit=limit))

    async def try_policy(request: Request) -> Response:
        since, after, limit = _span(request, clock)
        name = request.query_params.get("name", "")[:_MAX_NAME] or "new.rego"
        body = await read_body(request, limit=MAX_POLICY_BYTES)
        try:
            policy = AppraisalPolicy.from_text(body.decode("utf-8"), name=name)
        except UnicodeDecodeError as exc:
            raise DecodeError("not UTF-8", format="Appraisal Policy", offset=exc.start) from exc
        if defects := policy.lint():
            found = "; ".join(f"{defect.actual} ({defect.rule})" for defect in defects)
            raise DecodeError(
                found, format="Appraisal Policy", remedy="troth policy lint says more"
            )
        return _json(await desk.replay(policy, since=since, after=after, limit=limit))

    return [
        Route("/v1/policy", overview, methods=["GET"]),
        Route("/v1/policy/records", records, methods=["GET"]),
        Route("/v1/policy/differences", differences, methods=["GET"]),
        Route("/v1/policy/replay", try_policy, methods=["POST"]),
    ]


def _span(request: Request, clock: Clock) -> tuple[datetime, str, int]:
    """Read `since` (seconds back from now), `after` and `limit`."""
    seconds = query_number(
        request, "since", default=_DEFAULT_SINCE_SECONDS, maximum=MAX_SINCE_SECONDS
    )
    limit = query_number(request, "limit", default=MAX_PAGE, maximum=MAX_PAGE)
    after = request.query_params.get("after", "")
    if len(after) > 64:
        raise LimitExceededError(format="after", limit="length of a record's id", value=64)
    return clock.now().astimezone(UTC) - timedelta(seconds=seconds), after, max(1, limit)


def _next(records: tuple[RecordedAppraisal, ...], limit: int) -> str:
    return records[-1].id if len(records) == limit else ""


def _json(message: object) -> Response:
    return Response(msgspec.json.encode(message), media_type="application/json")
