# SPDX-License-Identifier: Apache-2.0
"""AMD's Key Distribution Service, with what it gave kept in a directory.

Nothing that it gives has to be believed for coming from there: certificates and lists are signed.
What is kept is first read, so that an error page never becomes a certificate. The service slows
callers down; so do we, before it has to, and we remember what it refused.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Final

import httpx
import structlog

from troth.clock import Clock, SystemClock
from troth.errors import ApiMisuseError, DecodeError, UnavailableError
from troth.evidence.certificates import VendorDocuments
from troth.evidence.collateral_source import CollateralRequest
from troth.evidence.context import Collateral

__all__ = ["KDS_URL", "AmdKds"]

KDS_URL: Final = "https://kdsintf.amd.com"

_LOG = structlog.get_logger("troth.adapters")

_MAX_DOCUMENT: Final = 1_048_576
_BURST: Final = 4
"""Requests that may follow each other at once: VCEK, chain and list of one host, and one more."""

_SECONDS_BETWEEN: Final = 10.0
"""Then one in so many seconds: what the service itself allows for one chip."""

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
class AmdKds:
    """Fetches AMD's certificates and lists; an EndorsementFetcher. Its methods block; any thread.

    Attributes:
        directory: where documents are kept; may be the operator's `--collateral`.
        base_url: of the service, or of a cache in front of it.
        refresh: how long a document that changes is taken from the directory without asking.
        timeout_seconds: for one request.
        clock: for waiting times only.
    """

    directory: Path
    base_url: str = KDS_URL
    refresh: timedelta = timedelta(hours=24)
    timeout_seconds: float = 10.0
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        self._lock = Lock()
        self._service: _Pause | None = None
        self._pauses: OrderedDict[str, _Pause] = OrderedDict()
        self._tokens = float(_BURST)
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

    def _document(self, request: CollateralRequest, now: datetime) -> bytes:
        path = self.directory / _checked_name(request.name)
        kept, kept_at = _read_kept(path)
        if kept is not None and (not request.changes or now - kept_at <= self.refresh):
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
            content = self._get(request)
            _check_content(content, request)
        except _RefusedError as exc:
            self._pauses[request.name] = _Pause(now + _REFUSED_SECONDS, str(exc))
            while len(self._pauses) > _MAX_PAUSES:
                self._pauses.popitem(last=False)
            raise
        except UnavailableError as exc:
            wait = min(exc.retry_after_seconds or _DOWN_SECONDS, _RETRY_AFTER_MAX)
            self._service = _Pause(now + wait, str(exc))
            raise
        return content

    def _take_token(self, request: CollateralRequest, now: float) -> None:
        earned = (now - self._counted_at) / _SECONDS_BETWEEN
        self._tokens = min(float(_BURST), self._tokens + earned)
        self._counted_at = now
        if self._tokens < 1:
            raise UnavailableError(
                f"{request.description}: not asked for yet, so as not to be shut out by "
                f"{self.base_url}",
                retry_after_seconds=(1 - self._tokens) * _SECONDS_BETWEEN,
            )
        self._tokens -= 1

    def _get(self, request: CollateralRequest) -> bytes:
        url = f"{self.base_url}{request.path}"
        what = f"{request.description} from {self.base_url}"
        try:
            with httpx.stream(
                "GET", url, timeout=self.timeout_seconds, follow_redirects=False
            ) as response:
                if response.status_code == httpx.codes.OK:
                    return _body(response, what)
                raise _refusal(response, what)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise UnavailableError(
                f"{what}: {str(exc) or type(exc).__name__}",
                remedy="Check the way to the service, or put the documents into the directory.",
            ) from exc


class _RefusedError(UnavailableError):
    """The service answers, and does not have this document."""


def _refusal(response: httpx.Response, what: str) -> UnavailableError:
    status = response.status_code
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        after = response.headers.get("retry-after", "")
        return UnavailableError(
            f"{what}: answered {status}",
            retry_after_seconds=float(after) if after.isdecimal() else None,
            remedy="Try again later; what is kept in the directory goes on being used.",
        )
    return _RefusedError(
        f"{what}: answered {status}",
        remedy="AMD does not know this chip at this TCB version: the host reports one that it does "
        "not run, or the product line is another one.",
    )


def _body(response: httpx.Response, what: str) -> bytes:
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > _MAX_DOCUMENT:
            raise _RefusedError(f"{what}: longer than any document ({_MAX_DOCUMENT} octets)")
    return bytes(content)


def _check_content(content: bytes, request: CollateralRequest) -> None:
    try:
        VendorDocuments().add(content, source=request.name, in_evidence=False)
    except DecodeError as exc:
        raise _RefusedError(f"{request.description}: what came is none: {exc}") from exc


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
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".kds-", delete=False) as file:
            file.write(content)
        written = Path(file.name)
        try:
            os.utime(written, (now.timestamp(), now.timestamp()))
            written.replace(path)
        except OSError:
            written.unlink()
            raise
    except OSError as exc:
        _LOG.warning("cannot keep a document of AMD's", path=str(path), error=str(exc))
