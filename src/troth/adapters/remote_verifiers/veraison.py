# SPDX-License-Identifier: Apache-2.0
"""A Veraison service as a Verifier.

Source: veraison/docs, api/challenge-response and api/well-known.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx
import msgspec

from troth.adapters.bounded_http import BoundedClient
from troth.adapters.remote_verifiers.remote_verifier import Submission
from troth.errors import DecodeError, UnavailableError, UnsupportedError
from troth.evidence import registry
from troth.formats.base64url import encode_base64url
from troth.formats.jwk import decode_jwk
from troth.formats.strict_json import decode_json_object
from troth.formats.verification_key import VerificationKey

__all__ = ["VeraisonService"]

_SESSION: Final = "application/vnd.veraison.challenge-response-session+json"
_DISCOVERY: Final = "application/vnd.veraison.discovery+json"
_NEW: Final = "/challenge-response/v1/newSession"
_WELL_KNOWN: Final = "/.well-known/veraison/verification"
_MAX_REPLY_BYTES: Final = 1_048_576
_POLL_SECONDS: Final = 0.1
_SCHEMES: Final = ("psa", "cca")


class VeraisonService:
    """Talks to one Veraison service; an `AttestationService`. Close it.

    Args:
        url: of its verification API, "https://host:port".
        tls: context for https.
        timeout_seconds: for one step; an appraisal may take three of them.
    """

    def __init__(self, url: str, *, tls: ssl.SSLContext | None, timeout_seconds: float) -> None:
        self._http = BoundedClient(
            url, tls=tls, timeout_seconds=timeout_seconds, max_bytes=_MAX_REPLY_BYTES
        )
        self._seconds = 3 * timeout_seconds

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"Veraison at {self._http.url}"

    @property
    def schemes(self) -> Mapping[str, registry.Loader]:
        """The schemes whose Evidence can be sent there and read here."""
        return {name: registry.SCHEMES[name] for name in _SCHEMES}

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def submit(self, submission: Submission) -> str:
        """Return the EAR, not verified; see `AttestationService`."""
        session = self._opened(submission.challenge)
        response = self._http.request(
            "POST",
            session,
            content=submission.evidence,
            headers={"Content-Type": submission.media_type, "Accept": _SESSION},
        )
        deadline = time.monotonic() + self._seconds
        while True:
            document = self._session(response)
            if document.get("status") != "processing":
                break
            if time.monotonic() > deadline:
                raise UnavailableError(f"{self.name} takes too long over its appraisal")
            time.sleep(_POLL_SECONDS)
            response = self._http.request("GET", session, headers={"Accept": _SESSION})
        self._http.request("DELETE", session)
        result = document.get("result")
        if document.get("status") != "complete" or not isinstance(result, str):
            raise UnavailableError(f"{self.name} could not appraise the Evidence")
        return result

    def keys(self) -> list[VerificationKey]:
        """Return the key in its discovery document."""
        response = self._http.request("GET", _WELL_KNOWN, headers={"Accept": _DISCOVERY})
        if response.status_code != httpx.codes.OK:
            raise UnavailableError(f"{self.name} answers {response.status_code} for its keys")
        document = decode_json_object(response.content, format=f"{self.name}: discovery")
        return [decode_jwk(document.get("ear-verification-key"), format=f"{self.name}: key")]

    def _opened(self, challenge: bytes) -> str:
        """Open a session with our challenge as its nonce, and return its path."""
        nonce = encode_base64url(challenge)
        response = self._http.request("POST", f"{_NEW}?nonce={nonce}", headers={"Accept": _SESSION})
        document = self._session(response, wanted=httpx.codes.CREATED)
        given = document.get("nonce")
        if not isinstance(given, str) or given.rstrip("=") != nonce:
            raise DecodeError("the session is about another nonce", format=self.name)
        base = self._http.url
        location = urljoin(f"{base}{_NEW}", str(response.headers.get("location", "")))
        # Elsewhere the Evidence would be somebody else's.
        if urlsplit(location)[:2] != urlsplit(base)[:2] or not location.startswith(base):
            raise DecodeError("the session is at another service", format=self.name)
        return location.removeprefix(base)

    def _session(self, response: httpx.Response, *, wanted: int | None = None) -> dict[str, Any]:
        expected = {wanted} if wanted else {httpx.codes.OK, httpx.codes.ACCEPTED}
        if response.status_code not in expected:
            raise self._refused(response)
        return decode_json_object(response.content, format=f"{self.name}: session")

    def _refused(self, response: httpx.Response) -> UnsupportedError | UnavailableError:
        said = _problem(response)
        if response.status_code == httpx.codes.UNSUPPORTED_MEDIA_TYPE:
            return UnsupportedError(f"{self.name}: {said}", format="Evidence")
        return UnavailableError(f"{self.name} answers {response.status_code}: {said}")


def _problem(response: httpx.Response) -> str:
    """Return the reason in a problem document, as far as there is one."""
    try:
        document = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "no reason given"
    detail = document.get("detail") if isinstance(document, dict) else None
    return f"{detail:.256}" if isinstance(detail, str) else "no reason given"
