# SPDX-License-Identifier: Apache-2.0
"""A vendor's service for documents about its hardware, with what it gave kept in a directory.

Nothing that it gives has to be believed for coming from there: the documents are signed. What is
kept is first read, so that an error page never becomes a document. Services slow callers down; so
do we, before they have to, and we remember what they refused.
"""

from __future__ import annotations

import functools
import os
import ssl
import tempfile
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import ClassVar, Final

import httpx
import structlog

from troth.clock import Clock, SystemClock
from troth.errors import ApiMisuseError, DecodeError, UnavailableError
from troth.evidence.collateral_source import CollateralRequest
from troth.evidence.context import Collateral

__all__ = ["VendorService"]

_LOG = structlog.get_logger("troth.adapters")

_MAX_DOCUMENT: Final = 1_048_576
_MAX_PAUSES: Final = 1024
"""Refused documents that are remembered; whoever sends reports decides what is asked for."""

_REFUSED_SECONDS: Final = 600.0
_DOWN_SECONDS: Final = 30.0
_RETRY_AFTER_MAX: Final = 3600.0


@dataclass(frozen=True, slots=True)
class _Pause:
    """Until when something is not asked for again, and why."""

    until: float
    why: str


@dataclass
class VendorService(ABC):
    """Fetches a vendor's documents; an EndorsementFetcher. Its methods block; any thread.

    Attributes:
        directory: where documents are kept; may be the operator's `--collateral`.
        base_url: of the service, or of a cache in front of it.
        refresh: how long a document that changes is taken from the directory without asking.
        timeout_seconds: for one request.
        clock: for waiting times only.
    """

    directory: Path
    base_url: str
    refresh: timedelta = timedelta(hours=24)
    timeout_seconds: float = 10.0
    clock: Clock = field(default_factory=SystemClock)

    burst: ClassVar[int]
    """Requests that may follow each other at once."""

    seconds_between: ClassVar[float]
    """Then one in so many seconds."""

    refused_remedy: ClassVar[str]
    """What to do where the service answers and does not have a document."""

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._service: _Pause | None = None
        self._pauses: OrderedDict[str, _Pause] = OrderedDict()
        self._tokens = float(self.burst)
        self._counted_at = self.clock.monotonic()

    def fetch(self, requests: Sequence[CollateralRequest], *, now: datetime) -> Collateral:
        """Return the documents, kept or fetched; those that cannot be had are left out.

        Raises:
            UnavailableError: none of them can be had; it says why and when to try again.
        """
        documents: dict[str, bytes] = {}
        failures: list[UnavailableError] = []
        with self._lock:
            for request in requests:
                try:
                    documents[request.name] = self._document(request, now)
                except UnavailableError as exc:
                    failures.append(exc)
        if failures and not documents:
            waits = [each.retry_after_seconds for each in failures if each.retry_after_seconds]
            raise UnavailableError(
                "; ".join(str(failure) for failure in failures),
                retry_after_seconds=max(waits, default=None),
                remedy=failures[0].remedy,
            )
        return Collateral(documents)

    @abstractmethod
    def read(self, response: httpx.Response, content: bytes, request: CollateralRequest) -> bytes:
        """Return the document to keep, made of an answer.

        Raises:
            DecodeError: it is none.
        """

    def url(self, request: CollateralRequest) -> str:
        """Return where to ask."""
        return f"{self.base_url}{request.path}"

    def serves(
        self, kept: bytes, kept_at: datetime, request: CollateralRequest, now: datetime
    ) -> bool:
        """Say whether a kept document may be used without asking."""
        del kept
        return not request.changes or now - kept_at <= self.refresh

    def _document(self, request: CollateralRequest, now: datetime) -> bytes:
        path = self.directory / _checked_name(request.name)
        kept, kept_at = _read_kept(path)
        if kept is not None and self.serves(kept, kept_at, request, now):
            return kept
        try:
            fetched = self._ask(request)
        except UnavailableError:
            if kept is not None:
                return kept
            raise
        _keep(path, fetched, now)
        return fetched

    def _ask(self, request: CollateralRequest) -> bytes:
        now = self.clock.monotonic()
        for pause in (self._service, self._pauses.get(request.name)):
            if pause is not None and now < pause.until:
                raise UnavailableError(pause.why, retry_after_seconds=pause.until - now)
        self._take_token(request, now)
        try:
            return self._get(request)
        except _RefusedError as exc:
            self._pauses[request.name] = _Pause(now + _REFUSED_SECONDS, str(exc))
            while len(self._pauses) > _MAX_PAUSES:
                self._pauses.popitem(last=False)
            raise
        except UnavailableError as exc:
            wait = min(exc.retry_after_seconds or _DOWN_SECONDS, _RETRY_AFTER_MAX)
            self._service = _Pause(now + wait, str(exc))
            raise

    def _take_token(self, request: CollateralRequest, now: float) -> None:
        earned = (now - self._counted_at) / self.seconds_between
        self._tokens = min(float(self.burst), self._tokens + earned)
        self._counted_at = now
        if self._tokens < 1:
            raise UnavailableError(
                f"{request.description}: not asked for yet, so as not to be shut out by "
                f"{self.base_url}",
                retry_after_seconds=(1 - self._tokens) * self.seconds_between,
            )
        self._tokens -= 1

    def _get(self, request: CollateralRequest) -> bytes:
        url = self.url(request)
        what = f"{request.description} from {httpx.URL(url).copy_with(raw_path=b'/')}".rstrip("/")
        try:
            with httpx.stream(
                "GET",
                url,
                timeout=self.timeout_seconds,
                follow_redirects=False,
                verify=_system_authorities(),
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise self._refusal(response, what)
                content = _body(response, what)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise UnavailableError(
                f"{what}: {str(exc) or type(exc).__name__}",
                remedy="Check the way to the service, or put the documents into the directory.",
            ) from exc
        try:
            return self.read(response, content, request)
        except DecodeError as exc:
            raise _RefusedError(f"{request.description}: what came is none: {exc}") from exc

    def _refusal(self, response: httpx.Response, what: str) -> UnavailableError:
        status = response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            after = response.headers.get("retry-after", "")
            return UnavailableError(
                f"{what}: answered {status}",
                retry_after_seconds=float(after) if after.isdecimal() else None,
                remedy="Try again later; what is kept in the directory goes on being used.",
            )
        return _RefusedError(f"{what}: answered {status}", remedy=self.refused_remedy)


class _RefusedError(UnavailableError):
    """The service answers, and does not have this document."""


@functools.cache
def _system_authorities() -> ssl.SSLContext:
    # Reading them takes longer than all the rest of a request.
    return httpx.create_ssl_context()


def _body(response: httpx.Response, what: str) -> bytes:
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > _MAX_DOCUMENT:
            raise _RefusedError(f"{what}: longer than any document ({_MAX_DOCUMENT} octets)")
    return bytes(content)


def _checked_name(name: str) -> str:
    if not name or name != Path(name).name or name.startswith("."):
        raise ApiMisuseError(f"{name!r} is no name for a document")
    return name


def _read_kept(path: Path) -> tuple[bytes | None, datetime]:
    """Return the kept document and when it was fetched."""
    try:
        with path.open("rb") as file:
            modified = os.fstat(file.fileno()).st_mtime
            content = file.read(_MAX_DOCUMENT + 1)
    except OSError:
        return None, datetime.min.replace(tzinfo=UTC)
    return content, datetime.fromtimestamp(modified, UTC)


def _keep(path: Path, content: bytes, now: datetime) -> None:
    """Write the document whole or not at all. That it cannot be kept is not the reader's loss."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".fetched-", delete=False) as file:
            file.write(content)
        written = Path(file.name)
        try:
            os.utime(written, (now.timestamp(), now.timestamp()))
            written.replace(path)
        except OSError:
            written.unlink()
            raise
    except OSError as exc:
        _LOG.warning("cannot keep a vendor's document", path=str(path), error=str(exc))
