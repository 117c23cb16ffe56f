# SPDX-License-Identifier: Apache-2.0
"""The feed's live side: streams that follow the registry's outbox."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from troth.control_plane.server.worker import Worker
from troth.errors import ConflictError
from troth.mesh.event import Event, FeedMessage, FeedNotice, Heartbeat
from troth.mesh.registry import Registry

__all__ = ["FeedHub"]

_PAGE = 500


class FeedHub:
    """Wakes every stream when the registry has committed something.

    Args:
        registry: whose events to send.
        worker: the registry's thread.
        heartbeat_seconds: longest silence in a stream.
    """

    def __init__(self, registry: Registry, worker: Worker, *, heartbeat_seconds: float) -> None:
        self._registry = registry
        self._worker = worker
        self._heartbeat_seconds = heartbeat_seconds
        self._changed = asyncio.Event()
        self._closed = False
        self._notices: dict[type[FeedNotice], FeedNotice] = {}

    @property
    def changed(self) -> asyncio.Event:
        """Is set by the next `wake`; take it before reading what is waited for."""
        return self._changed

    def wake(self) -> None:
        """Tell every stream that there may be new events."""
        self._changed.set()
        self._changed = asyncio.Event()

    def announce(self, notice: FeedNotice) -> None:
        """Tell every stream how things of this kind are now; new streams are told at their start."""
        self._notices[type(notice)] = notice
        self.wake()

    def close(self) -> None:
        """End every stream after what it is sending."""
        self._closed = True
        self.wake()

    async def follow(self, after: int | None) -> AsyncIterator[FeedMessage | FeedNotice]:
        """Yield what comes after event `after`, forever; None begins with a snapshot.

        Where the events after `after` are not kept, or `after` was never given out, the stream
        begins with a snapshot too. Ends only by `close`.
        """
        sequence = after if after is not None else -1
        told: dict[type[FeedNotice], FeedNotice] = {}
        while not self._closed:
            # Taken before the read: what is committed between read and wait ends the wait.
            changed = self._changed
            # Notices need no read, so they do not wait for one; but a snapshot comes first.
            if sequence >= 0:
                for kind, notice in list(self._notices.items()):
                    if told.get(kind) is not notice:
                        told[kind] = notice
                        yield notice
            messages = await self._read(sequence)
            for message in messages:
                sequence = message.sequence
                yield message
            if messages:
                continue
            try:
                async with asyncio.timeout(self._heartbeat_seconds):
                    await changed.wait()
            except TimeoutError:
                yield Heartbeat(sequence=sequence)

    async def _read(self, after: int) -> list[FeedMessage]:
        if after >= 0:
            with contextlib.suppress(ConflictError):
                events: tuple[Event, ...] = await self._worker.run(
                    self._registry.events, after=after, limit=_PAGE
                )
                return list(events)
        return [await self._worker.run(self._registry.snapshot)]
