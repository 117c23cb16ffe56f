# SPDX-License-Identifier: Apache-2.0
"""The feed as a stream of lines (NDJSON), for members and for operators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.http_server import caller_of
from troth.control_plane.server.requests import query_number, read_message
from troth.mesh.event import Event, FeedMessage, FeedNotice, Snapshot, encode_message
from troth.mesh.node import PERMISSIONS
from troth.mesh.node_record import NodeRecord

__all__ = ["FEED_MEDIA_TYPE", "AckRequest", "MemberFeed", "operator_feed"]

FEED_MEDIA_TYPE = "application/x-ndjson"
_MAX_SEQUENCE = 2**63 - 1
# A lease is renewed this often within itself.
_RENEWALS_PER_LEASE = 3


class AckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An agent has applied everything up to this number."""

    sequence: Annotated[int, Meta(ge=0, le=_MAX_SEQUENCE)]


class MemberFeed:
    """Streams to members, and what they acknowledge."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context
        self._lease = timedelta(seconds=context.config.lease_seconds)

    async def stream(self, request: Request) -> Response:
        """`GET /v1/feed?after=N`: everything after event N; without N, a snapshot first."""
        node = await self._context.members.member(caller_of(request.scope))
        after = query_number(request, "after", default=-1, maximum=_MAX_SEQUENCE)
        # From here on an expulsion waits for this agent, until its lease ends.
        await self._renew(node.id, -1)
        messages = self._until_excluded(node, after if after >= 0 else None)
        return StreamingResponse(messages, media_type=FEED_MEDIA_TYPE)

    async def acknowledge(self, request: Request) -> Response:
        """`POST /v1/feed/ack`: the agent has applied everything up to a number."""
        node = await self._context.members.member(caller_of(request.scope))
        ack = await read_message(request, AckRequest, limit=self._context.config.limits.body_bytes)
        await self._renew(node.id, ack.sequence)
        self._context.hub.wake()
        return Response(status_code=204)

    async def _renew(self, node_id: str, sequence: int) -> None:
        await self._context.registry_worker.run(
            self._context.registry.acknowledge,
            node_id,
            sequence=sequence,
            lease_until=self._context.clock.now() + self._lease,
        )

    async def _until_excluded(self, node: NodeRecord, after: int | None) -> AsyncIterator[bytes]:
        """Yield lines until the reader's own node may not read them any more."""
        clock = self._context.clock
        renewal = self._lease.total_seconds() / _RENEWALS_PER_LEASE
        renewed = clock.monotonic()
        self._context.metrics.streams.inc()
        try:
            async for message in self._context.hub.follow(after):
                yield encode_message(message)
                if _excludes(message, node.id):
                    return
                if clock.monotonic() - renewed >= renewal:
                    renewed = clock.monotonic()
                    await self._renew(node.id, -1)
        finally:
            self._context.metrics.streams.dec()


async def operator_feed(context: ServerContext, request: Request) -> Response:
    """`GET /v1/feed?after=N` for operators: the same lines, without lease."""
    after = query_number(request, "after", default=-1, maximum=_MAX_SEQUENCE)

    async def lines() -> AsyncIterator[bytes]:
        async for message in context.hub.follow(after if after >= 0 else None):
            yield encode_message(message)

    return StreamingResponse(lines(), media_type=FEED_MEDIA_TYPE)


def _excludes(message: FeedMessage | FeedNotice, node_id: str) -> bool:
    if isinstance(message, Event):
        about = [message.member]
    elif isinstance(message, Snapshot):
        about = list(message.members)
    else:
        return False
    return any(member.node_id == node_id and not PERMISSIONS[member.state].feed for member in about)
