# SPDX-License-Identifier: Apache-2.0
"""What the server's problem documents and a broken connection mean, as our errors.

Source: RFC 9457 section 3.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
import msgspec

from troth.errors import (
    AuthorizationError,
    BindingError,
    ChainError,
    ConflictError,
    DecodeError,
    FreshnessError,
    TrothError,
    UnavailableError,
    VerificationError,
)
from troth.verifier.finding import Finding

__all__ = ["RefusedByServerError", "error_of", "translated"]


class RefusedByServerError(AuthorizationError):
    """The server refused a join, for a reason that is on record there.

    Attributes:
        reason: the class of the refusal, such as "not_authentic" or "refused".
        refusal: its id; `troth explain` on the server says all about it.
        findings: what the server's Verifier found, where it tells.
    """

    def __init__(
        self, message: str, *, reason: str, refusal: str, findings: Sequence[Finding], remedy: str
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.reason, self.refusal, self.findings = reason, refusal, tuple(findings)


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    title: str = ""
    code: str = ""
    detail: str = ""
    remedy: str = ""
    refusal: str = ""
    findings: tuple[Finding, ...] = ()


_BY_CODE: dict[str, type[TrothError]] = {
    "not_authentic": VerificationError,
    "not_fresh": FreshnessError,
    "not_bound": BindingError,
    "refused": AuthorizationError,
    "conflict": ConflictError,
    "not_found": ConflictError,
}


def error_of(response: httpx.Response) -> TrothError:
    """Return the error that a response other than success means."""
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem()
    what = problem.detail or problem.title or f"status {response.status_code}"
    message = f"server: {what}"
    if problem.refusal and problem.code == UnavailableError.code:
        # Undecided, not refused: a vendor's document is missing there.
        return UnavailableError(
            f"{message} (on record there as {problem.refusal})",
            retry_after_seconds=_retry_after(response),
            remedy=problem.remedy
            or f"`troth explain {problem.refusal}` on the server says what is missing",
        )
    if problem.refusal:
        return RefusedByServerError(
            f"{message} (refusal {problem.refusal})",
            reason=problem.code,
            refusal=problem.refusal,
            findings=problem.findings,
            remedy=problem.remedy
            or f"`troth explain {problem.refusal}` on the server says what was found",
        )
    kind = _BY_CODE.get(problem.code)
    if kind is not None:
        return kind(message, remedy=problem.remedy)
    if response.status_code in (413, 415) or problem.code == "malformed":
        return DecodeError(what, format="request, as the server sees it", remedy=problem.remedy)
    return UnavailableError(message, retry_after_seconds=_retry_after(response))


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else None


@contextmanager
def translated() -> Iterator[None]:
    """Turn the HTTP client's exceptions into ours.

    Raises:
        ChainError: whoever answers is not the server.
        UnavailableError: no connection, no answer, or a broken one.
    """
    try:
        yield
    except httpx.HTTPError as exc:
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise ChainError(
                    f"the server is not the expected one: {cause.args[-1]}",
                    remedy="compare server address, SPIFFE ID and trust bundle",
                ) from exc
            cause = cause.__cause__ or cause.__context__
        raise UnavailableError(
            f"the server does not answer: {str(exc) or type(exc).__name__}"
        ) from exc
    except httpx.InvalidURL as exc:
        raise UnavailableError(f"the server's address cannot be used: {exc}") from exc
