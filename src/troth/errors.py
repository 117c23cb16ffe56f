# SPDX-License-Identifier: Apache-2.0
"""The whole exception tree.

::

    TrothError
    ├─ ApiMisuseError          the caller's code is wrong; never caused by peer bytes
    ├─ ConfigurationError      names source, key, value and the accepted form
    ├─ DecodeError             bytes are not what `format` says (format, offset)
    │   ├─ LimitExceededError  a documented limit was crossed (limit, value)
    │   └─ UnsupportedError    well-formed, outside our profile
    ├─ VerificationError       authenticity not established
    │   ├─ SignatureError      no trust anchor matches, or a signature or MAC does not verify
    │   ├─ ChainError          a certificate path does not end at a trust anchor
    │   ├─ FreshnessError      the nonce, time or epoch is not the expected one
    │   └─ BindingError        Evidence is not about this key, channel or other token
    ├─ PeerError               the peer broke the protocol (alert)
    ├─ AuthorizationError      authentic but not allowed (result)
    ├─ ConflictError           the state changed under the caller; read again and retry
    └─ UnavailableError        something we call is down; retry_after_seconds or None
        ├─ CollateralError     a vendor's document is missing or out of date (vendor, wanted)
        └─ ProxyError          Envoy refused a configuration, or ended

Two questions decide the class: whose fault is it, and what can the catcher do? Appraisal
outcomes are values, not exceptions. `str(error)` is for operators: it names the cause and,
where there is one, the remedy. A peer is told only `error.code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

__all__ = [
    "ApiMisuseError",
    "AuthorizationError",
    "BindingError",
    "ChainError",
    "CollateralError",
    "ConfigurationError",
    "ConflictError",
    "DecodeError",
    "FreshnessError",
    "LimitExceededError",
    "PeerError",
    "ProxyError",
    "SignatureError",
    "TrothError",
    "UnavailableError",
    "UnsupportedError",
    "VerificationError",
]


class TrothError(Exception):
    """Base of every error that Troth raises on purpose.

    Attributes:
        code: the coarse class that a peer may be told.
        remedy: what the operator can do about it, or "" where nothing specific is known.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


class ApiMisuseError(TrothError):
    """The caller's code is wrong. Never caused by bytes from a peer."""

    code = "internal"


class ConfigurationError(TrothError):
    """A setting is missing or wrong.

    Attributes:
        source: the file, option or environment variable.
        key: the dotted key, or "" where the whole source is unreadable.
        value: the offending value as text, or "" where it is absent.
        accepted: the accepted form, in words.
    """

    code = "configuration"

    def __init__(self, *, source: str, key: str = "", value: str = "", accepted: str) -> None:
        place = f"{source}: {key}" if key else source
        got = f" is {value!r}" if value else ""
        super().__init__(f"{place}{got}; expected {accepted}")
        self.source, self.key, self.value, self.accepted = source, key, value, accepted


class DecodeError(TrothError):
    """Bytes are not what `format` says.

    Attributes:
        format: the format or message, such as "COSE_Sign1" or "PSA token".
        offset: byte offset of the defect where it is known, else None.
    """

    code = "malformed"

    def __init__(
        self, message: str, *, format: str, offset: int | None = None, remedy: str = ""
    ) -> None:
        where = f" at byte {offset}" if offset is not None else ""
        super().__init__(f"{format}{where}: {message}", remedy=remedy)
        self.format, self.offset = format, offset


class LimitExceededError(DecodeError):
    """A documented limit was crossed (docs/reference/limits.md).

    Attributes:
        limit: name of the limit.
        value: the limit's value, in the unit that its name states.
    """

    code = "too_large"

    def __init__(self, *, format: str, limit: str, value: int, offset: int | None = None) -> None:
        super().__init__(f"more than {limit}={value}", format=format, offset=offset)
        self.limit, self.value = limit, value


class UnsupportedError(DecodeError):
    """Well-formed, but outside the profile that Troth accepts."""

    code = "unsupported"


class VerificationError(TrothError):
    """Authenticity was not established."""

    code = "not_authentic"


class SignatureError(VerificationError):
    """No trust anchor matches, or a signature or MAC does not verify under the one that does."""


class ChainError(VerificationError):
    """A certificate path does not end at a trust anchor, or a certificate on it is not valid."""


class FreshnessError(VerificationError):
    """The nonce, time or epoch in the Evidence is not the expected one."""

    code = "not_fresh"


class BindingError(VerificationError):
    """The Evidence is not about this key, this channel, or the token beside it."""

    code = "not_bound"


class PeerError(TrothError):
    """The peer broke the protocol.

    Attributes:
        alert: the alert or protocol error name to answer with.
    """

    code = "protocol"

    def __init__(self, message: str, *, alert: str = "protocol_error") -> None:
        super().__init__(message)
        self.alert = alert


class AuthorizationError(TrothError):
    """Authentic, but not allowed.

    Attributes:
        result: the AttestationResult that was not enough, or None where there was none.
    """

    code = "refused"

    def __init__(self, message: str, *, result: object | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.result = result


class ConflictError(TrothError):
    """The state changed under the caller: read it again and decide again."""

    code = "conflict"


class UnavailableError(TrothError):
    """Something that we call is down or does not answer in time.

    Attributes:
        retry_after_seconds: when to try again, or None where nothing is known.
    """

    code = "unavailable"

    def __init__(
        self, message: str, *, retry_after_seconds: float | None = None, remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_seconds = retry_after_seconds


class CollateralError(UnavailableError):
    """A document of a hardware vendor is missing, out of date or damaged.

    Nothing follows about the Attester: its Evidence is neither good nor bad. Whoever catches this
    may fetch what is wanted and verify again (`troth.evidence.collateral_source`).

    Attributes:
        vendor: whose documents, such as "intel"; "" where nothing could be fetched that helps.
        wanted: what to ask the vendor for, in the words of its service.
    """

    def __init__(
        self,
        message: str,
        *,
        vendor: str = "",
        wanted: Mapping[str, str] | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.vendor, self.wanted = vendor, dict(wanted or {})


class ProxyError(UnavailableError):
    """The data-plane proxy refused a configuration, did not start, or ended by itself."""
