# SPDX-License-Identifier: Apache-2.0
"""A client of CoSERV services that keeps answers on disk.

An answer is used without asking for as long as the service's cache directives allow, and while the
service cannot be reached until the answer's own expiry. The files are no more trusted than the
network: each is the answer as it was signed, and the signature is verified again when it is read.

Source: draft-ietf-rats-coserv (472a81a) "CoSERV Transactions over HTTP"; RFC 9111 section 5.2.2.1.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Final

import httpx

from troth.adapters.bounded_http import BoundedClient
from troth.clock import Clock, SystemClock
from troth.errors import (
    BindingError,
    DecodeError,
    FreshnessError,
    TrothError,
    UnavailableError,
    UnsupportedError,
    VerificationError,
)
from troth.formats import cbor
from troth.formats.base64url import encode_base64url
from troth.formats.coserv import SIGNED_MEDIA_TYPE, Coserv, verify_coserv
from troth.formats.limits import RIM_LIMITS, Limits
from troth.formats.media_type import MediaType
from troth.formats.strict_json import decode_json_object
from troth.formats.verification_key import VerificationKey

__all__ = ["CoservClient"]

_LOG = logging.getLogger(__name__)
_CONFIGURATION: Final = "/.well-known/coserv-configuration"
_DISCOVERY: Final = "application/coserv-discovery+json"
_ENDPOINT: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*/\{query\}")
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:$|[\s,])")
_FILE_LIMITS: Final = Limits(max_bytes=RIM_LIMITS.max_bytes + 64, max_items=8, max_depth=2)
_RETRY_SECONDS: Final = 10.0
"""How long a service that did not answer is left alone."""
_LOCKS: Final = 16
_SWEEP_EVERY: Final = 64


@dataclass(frozen=True, slots=True)
class _Kept:
    """An answer in force: as signed, decoded, and until when it is used without asking.

    Attributes:
        storable: whether the service allows that it is kept.
    """

    raw: bytes
    answer: Coserv
    fresh_until: datetime
    storable: bool = True


class CoservClient:
    """Asks one service. Methods block; any thread may call them. Close it.

    Args:
        url: of the service, "https://host:port".
        keys: that its answers verify with.
        directory: where answers are kept; made if absent.
        tls: context for https, or None for the system's authorities.
        timeout_seconds: for one answer.
        max_kept: answers kept; the oldest go first.
        clock: time.
    """

    def __init__(
        self,
        url: str,
        *,
        keys: Sequence[VerificationKey],
        directory: Path,
        tls: ssl.SSLContext | None = None,
        timeout_seconds: float = 5.0,
        max_kept: int = 10_000,
        clock: Clock | None = None,
    ) -> None:
        self._keys, self._directory, self._max_kept = tuple(keys), directory, max_kept
        self._clock = clock or SystemClock()
        self._http = BoundedClient(
            url, tls=tls, timeout_seconds=timeout_seconds, max_bytes=RIM_LIMITS.max_bytes
        )
        self._locks = [Lock() for _ in range(_LOCKS)]
        self._endpoint = ""
        self._retry_at = 0.0
        self._written = 0
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise UnavailableError(f"{directory} cannot be made: {exc.strerror}") from exc

    def close(self) -> None:
        """Close all connections; what is on disk stays."""
        self._http.close()

    def signed_answer(self, query: Coserv, *, now: datetime) -> tuple[bytes, Coserv]:
        """Return the answer as it was signed, and decoded.

        Args:
            query: what is asked.
            now: the time.

        Raises:
            UnavailableError: no answer can be had, and none that was kept is in force.
            UnsupportedError: the service does not answer such queries.
            DecodeError, VerificationError: what it answers cannot be believed, and no answer that
                was kept is in force.
        """
        name = hashlib.sha256(query.encode()).hexdigest()
        with self._locks[int(name[:4], 16) % _LOCKS]:
            kept = self._kept(name, query, now)
            if kept is not None and now < kept.fresh_until:
                return kept.raw, kept.answer
            try:
                fetched = self._fetched(query, now)
            except UnsupportedError:
                raise  # it says so, and not whoever is in the way
            except (UnavailableError, VerificationError, DecodeError) as exc:
                if kept is None:
                    raise
                _LOG.warning("%s; an earlier answer is used until it expires", exc)
                return kept.raw, kept.answer
            # Strangers can ask for anything; what nobody knows must not push out what is known.
            if fetched.storable and _says_something(fetched.answer):
                self._keep(name, fetched)
            return fetched.raw, fetched.answer

    def _fetched(self, query: Coserv, now: datetime) -> _Kept:
        if self._clock.monotonic() < self._retry_at:
            raise UnavailableError(
                f"{self._http.url} did not answer a moment ago",
                retry_after_seconds=_RETRY_SECONDS,
            )
        try:
            response = self._ask(query)
        except UnavailableError:
            self._retry_at = self._clock.monotonic() + _RETRY_SECONDS
            raise
        answer = self._believed(response.content, query, now)
        return _Kept(
            response.content,
            answer,
            _fresh_until(response, answer, now),
            storable="no-store" not in response.headers.get("cache-control", "").lower(),
        )

    def _ask(self, query: Coserv) -> httpx.Response:
        endpoint = self._endpoint or self._discovered()
        path = endpoint.replace("{query}", encode_base64url(query.encode()))
        profile = query.profile if isinstance(query.profile, str) else ""
        wanted = MediaType(SIGNED_MEDIA_TYPE, {"profile": profile} if profile else {})
        response = self._http.request("GET", path, headers={"Accept": str(wanted)})
        if response.status_code in {400, 404, 406}:
            raise UnsupportedError(
                f"{self._http.url} answers {response.status_code}", format="CoSERV query"
            )
        if response.status_code != httpx.codes.OK:
            raise UnavailableError(f"{self._http.url} answers {response.status_code}")
        self._endpoint = endpoint
        return response

    def _discovered(self) -> str:
        response = self._http.request("GET", _CONFIGURATION, headers={"Accept": _DISCOVERY})
        if response.status_code != httpx.codes.OK:
            raise UnavailableError(
                f"{self._http.url}{_CONFIGURATION} answers {response.status_code}"
            )
        document = decode_json_object(response.content, format="CoSERV configuration")
        endpoints = document.get("api-endpoints")
        path = endpoints.get("CoSERVRequestResponse") if isinstance(endpoints, dict) else None
        # A path on this very service: the document is not signed.
        if not isinstance(path, str) or not _ENDPOINT.fullmatch(path):
            raise DecodeError(
                "no usable CoSERVRequestResponse among its endpoints",
                format="CoSERV configuration",
            )
        return path

    def _believed(self, raw: bytes, query: Coserv, now: datetime) -> Coserv:
        """Return the answer that is in `raw`, if it is signed, is to `query`, and in force."""
        answer = verify_coserv(raw, self._keys)
        if answer.profile != query.profile or answer.query != query.query:
            raise BindingError("CoSERV: the answer is to another query than the one asked")
        if answer.results is None:
            raise BindingError("CoSERV: a query came back without results")
        if now >= answer.results.expiry:
            raise FreshnessError(f"CoSERV: the answer expired at {answer.results.expiry:%FT%TZ}")
        return answer

    def _kept(self, name: str, query: Coserv, now: datetime) -> _Kept | None:
        path = self._directory / f"{name}.cbor"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            _LOG.warning("%s cannot be read: %s", path, exc.strerror)
            return None
        try:
            seconds, raw = _decode_file(data)
            answer = self._believed(raw, query, now)
        except TrothError as exc:
            _LOG.info("the kept answer %s is not used: %s", path.name, exc)
            with suppress(OSError):
                path.unlink()
            return None
        return _Kept(raw, answer, datetime.fromtimestamp(seconds, UTC))

    def _keep(self, name: str, kept: _Kept) -> None:
        path = self._directory / f"{name}.cbor"
        beside = path.with_name(f".{name}.{os.getpid()}")
        data = cbor.encode([int(kept.fresh_until.timestamp()), kept.raw])
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            beside.replace(path)
        except OSError as exc:
            # It is a cache: without it the service is asked again.
            _LOG.warning("%s cannot be written: %s", path, exc.strerror)
            return
        self._written += 1
        if self._written % _SWEEP_EVERY == 1:
            self._sweep()

    def _sweep(self) -> None:
        with suppress(OSError):
            files = sorted(
                (entry.stat().st_mtime_ns, entry.path)
                for entry in os.scandir(self._directory)
                if entry.name.endswith(".cbor")
            )
            for _, path in files[: max(0, len(files) - self._max_kept)]:
                Path(path).unlink(missing_ok=True)


def _says_something(answer: Coserv) -> bool:
    results = answer.results
    return results is not None and bool(
        any(results.quads.values()) or results.source_artifacts or results.rims
    )


def _decode_file(data: bytes) -> tuple[int, bytes]:
    match cbor.decode(data, format="kept CoSERV answer", limits=_FILE_LIMITS):
        case [int() as seconds, bytes() as raw] if 0 <= seconds < 2**40:
            return seconds, raw
    raise DecodeError("not what was written", format="kept CoSERV answer")


def _fresh_until(response: httpx.Response, answer: Coserv, now: datetime) -> datetime:
    expiry = answer.results.expiry if answer.results else now
    directives = response.headers.get("cache-control", "").lower()
    if "no-cache" in directives or "no-store" in directives:
        return now
    found = _MAX_AGE.search(directives)
    return min(expiry, now + timedelta(seconds=int(found[1]))) if found else expiry
