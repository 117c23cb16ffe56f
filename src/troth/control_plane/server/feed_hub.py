# SPDX-License-Identifier: Apache-2.0
"""The feed's live side: streams that follow the registry's outbox.

Every stream is a snapshot, where one is needed, and the tail of events after it. The hub reads
each new event once and keeps the last ones in memory for all streams. What is not there (a reader
that was away for long, a gap) is read from the registry again; what is not kept there either is
replaced by a snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from itertools import islice

from troth.control_plane.server.worker import Worker
from troth.errors import ConflictError
from troth.mesh.event import Event, FeedMessage, FeedNotice, Heartbeat
from troth.mesh.registry import Registry

__all__ = ["FeedHub"]

_PAGE = 500
_TAIL = 2000
"""Events kept in memory."""


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
        self._listening = False
        self._notices: dict[type[FeedNotice], FeedNotice] = {}
        # Without gaps; `_known` is the number of the last one, or -1 before the first look.
        self._tail: deque[Event] = deque(maxlen=_TAIL)
        self._known = -1
        self._stale = True
        self._reading = asyncio.Lock()

    @property
    def changed(self) -> asyncio.Event:
        """Is set by the next `wake`; take it before reading what is waited for."""
        self._listen()
        return self._changed

    def wake(self) -> None:
        """Tell every stream that there may be new events."""
        self._stale = True
        self._wake_streams()

    def _wake_streams(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _listen(self) -> None:
        """Let other servers on the same registry wake our streams, from the first stream on."""
        if self._listening or self._closed:
            return
        self._listening = True
        loop = asyncio.get_running_loop()

        def heard() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self.wake)

        self._registry.listen(heard)

    def announce(self, notice: FeedNotice) -> None:
        """Tell every stream how things of this kind are now; new streams are told at their start."""
        self._notices[type(notice)] = notice
        self._wake_streams()

    def close(self) -> None:
        """End every stream after what it is sending."""
        self._closed = True
        self.wake()

    async def follow(self, after: int | None) -> AsyncIterator[FeedMessage | FeedNotice]:
        """Yield what comes after event `after`, forever; None begins with a snapshot.

        Where the events after `after` are not kept, or `after` was never given out, the stream
        begins with a snapshot too. Ends only by `close`.
        """
        self._listen()
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
                # Whatever woke nobody is found now, before the server says that all is well.
                self._stale = True
                if late := await self._read(sequence):
                    for message in late:
                        sequence = message.sequence
                        yield message
                else:
                    yield Heartbeat(sequence=sequence)

    async def _read(self, after: int) -> list[FeedMessage]:
        if after >= 0:
            with contextlib.suppress(ConflictError):
                await self._look(after)
                if (kept := self._kept(after)) is not None:
                    return kept
                # Far behind, or further than our tail: another server told it that.
                return list(await self._worker.run(self._registry.events, after=after, limit=_PAGE))
        return [await self._worker.run(self._registry.snapshot)]

    async def _look(self, after: int) -> None:
        """Bring the tail up to date, once for all streams that want it."""
        async with self._reading:
            while self._stale:
                # First the flag: what is committed after the read sets it again.
                self._stale = False
                start = self._known if self._known >= 0 else after
                try:
                    events = await self._worker.run(self._registry.events, after=start, limit=_PAGE)
                except BaseException as exc:
                    self._stale = True
                    if isinstance(exc, ConflictError):
                        # The events after our last one are gone, or it was never given out.
                        self._tail.clear()
                        self._known = -1
                    raise
                self._tail.extend(events)
                self._known = events[-1].sequence if events else start
                self._stale = self._stale or len(events) == _PAGE

    def _kept(self, after: int) -> list[FeedMessage] | None:
        """Return what the tail has after `after`, or None where it does not reach there."""
        first = self._known - len(self._tail)
        if not first <= after <= self._known:
            return None
        skipped = after - first
        return list(islice(self._tail, skipped, skipped + _PAGE))
