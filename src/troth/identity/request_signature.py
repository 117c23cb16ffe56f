# SPDX-License-Identifier: Apache-2.0
"""The WIMSE profile of HTTP Message Signatures: a message that the holder of a WIT's key signed.

Covers method, target, the WIT, the tokens beside it and, by `Content-Digest`, the body. Two texts of
the draft differ in how the target is covered, `@request-target` or `@path` and `@query`. Both are
the same octets for an origin server, so either is accepted, and ours cover all three.

Source: draft-ietf-wimse-http-signature (the working group's text of August 2026) section 2;
RFC 9421.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from troth.errors import BindingError, DecodeError, FreshnessError, UnsupportedError
from troth.formats.base64url import encode_base64url
from troth.formats.http_signature import (
    Component,
    HttpMessage,
    SignatureParameters,
    Value,
    check_content_digest,
    content_digest,
    decode_signature,
    decode_signature_input,
    encode_signature,
    signature_base,
)
from troth.formats.signatures import verify_signature
from troth.formats.signer import Signer
from troth.identity.replay_cache import ReplayCache
from troth.identity.workload_identity_token import WIT_HEADER, Wit
from troth.identity.workload_proof_token import MAX_PROOF_LIFETIME

__all__ = [
    "SIGNATURE_HEADER",
    "SIGNATURE_INPUT_HEADER",
    "TAG",
    "sign_message",
    "verify_message",
]

TAG: Final = "wimse-workload-to-workload"
SIGNATURE_HEADER: Final = "signature"
SIGNATURE_INPUT_HEADER: Final = "signature-input"

_FORMAT: Final = "HTTP message signature"
_LABEL: Final = "wimse"
_NONCE_OCTETS: Final = 16
_MAX_NONCE: Final = 128
_DIGEST: Final = "content-digest"
_IF_PRESENT: Final = ("content-type", _DIGEST, "authorization", "txn-token")
_REQUEST_PARAMETERS: Final = frozenset({"wimse-aud", "wimse-sign-response"})
_RESPONSE_PARAMETERS: Final = frozenset({"wimse-req-nonce"})
_PARAMETERS: Final = frozenset({"created", "expires", "nonce", "tag"})


def sign_message(
    message: HttpMessage,
    signer: Signer,
    *,
    body: bytes,
    audience: str = "",
    request_nonce: str = "",
    covered: Sequence[str] = (),
    now: datetime,
    lifetime: timedelta = timedelta(seconds=60),
    random: Callable[[int], bytes],
) -> list[tuple[str, str]]:
    """Return the header fields that sign a message, to be added to it.

    Args:
        message: with its WIT in its headers.
        signer: holds the WIT's key, under the algorithm that the WIT names.
        body: of the message; without one no digest is added.
        audience: of a request: its target URI without query, or the receiver's name.
        request_nonce: of a response: the nonce of the request's signature.
        covered: further fields that must be covered, in lower case.
        now: timezone-aware.
        lifetime: how long it is good for.
        random: source of randomness.
    """
    added: list[tuple[str, str]] = []
    if body and message.header(_DIGEST) is None:
        added.append((_DIGEST, content_digest(body)))
    message = replace(message, headers=[*message.headers, *added])
    values: dict[str, Value] = {
        "created": int(now.timestamp()),
        "expires": int((now + lifetime).timestamp()),
        "nonce": encode_base64url(random(_NONCE_OCTETS)),
        "tag": TAG,
    }
    if message.status is None:
        values["wimse-aud"] = audience
    else:
        values["wimse-req-nonce"] = request_nonce
    wanted = [*_required(message, covered), *_targets(message)]
    parameters = SignatureParameters(tuple(dict.fromkeys(wanted)), values)
    signature = signer.sign(signature_base(message, parameters))
    added.append((SIGNATURE_INPUT_HEADER, f"{_LABEL}={parameters.encode()}"))
    added.append((SIGNATURE_HEADER, encode_signature(_LABEL, signature)))
    return added


def verify_message(
    message: HttpMessage,
    wit: Wit,
    *,
    body: bytes,
    audiences: Collection[str] = (),
    request_nonce: str = "",
    covered: Sequence[str] = (),
    replay: ReplayCache,
    now: datetime,
    leeway: timedelta = timedelta(0),
) -> SignatureParameters:
    """Verify that the holder of a WIT's key signed this message for us, just now; return by what.

    In this order: (1) the one signature with our tag, and its parameters; (2) that it covers what
    it must; (3) the signature, under the WIT's key and algorithm; (4) audience, or the request that
    a response answers; (5) times; (6) the body's digest; (7) that it was not used before.

    Args:
        message: as received.
        wit: verified.
        body: of the message, whole.
        audiences: of a request: what we are called; from configuration, never from `Host`.
        request_nonce: of a response: the nonce that our request's signature had.
        covered: further fields that must be covered where they are there.
        replay: remembers nonces.
        now: timezone-aware.
        leeway: how far the clocks may be apart.

    Raises:
        SignatureError: not signed by this key.
        DecodeError: fields outside our subset, or twice (UnsupportedError: a parameter).
        BindingError: covers too little, is for another receiver, or of another body.
        FreshnessError: ended, of the future, good for too long, or used before.
    """
    parameters, signature = _ours(message)
    response = message.status is not None
    allowed = _PARAMETERS | (_RESPONSE_PARAMETERS if response else _REQUEST_PARAMETERS)
    if unknown := sorted(parameters.values.keys() - allowed):
        raise UnsupportedError(f"the parameter {unknown[0]:.64} is not used here", format=_FORMAT)
    _check_covered(message, parameters, covered)
    base = signature_base(message, parameters)
    verify_signature(wit.key, wit.key.algorithm, signature, base, format=_FORMAT)
    if response:
        if not request_nonce or _text(parameters, "wimse-req-nonce") != request_nonce:
            raise BindingError(f"{_FORMAT}: the response answers another request")
    elif (audience := _text(parameters, "wimse-aud")) not in audiences:
        raise BindingError(f"{_FORMAT}: made out to {audience[:128]!r}, not to us")
    expires = _check_times(parameters, now=now, leeway=leeway)
    digest = message.header(_DIGEST)
    if digest is not None:
        check_content_digest(digest, body)
    elif body:
        raise BindingError(f"{_FORMAT}: there is a body, but no Content-Digest")
    nonce = _text(parameters, "nonce")
    if not 0 < len(nonce) <= _MAX_NONCE:
        raise DecodeError(f"the nonce has not 1 to {_MAX_NONCE} characters", format=_FORMAT)
    replay.remember(f"signature:{wit.key_digest}", nonce, until=expires + leeway, now=now)
    return parameters


def _ours(message: HttpMessage) -> tuple[SignatureParameters, bytes]:
    """Choose by tag, never by label."""
    inputs = message.header(SIGNATURE_INPUT_HEADER)
    signatures = message.header(SIGNATURE_HEADER)
    if inputs is None or signatures is None:
        raise DecodeError("Signature or Signature-Input is missing", format=_FORMAT)
    found = {
        label: parameters
        for label, parameters in decode_signature_input(inputs).items()
        if parameters.values.get("tag") == TAG
    }
    if len(found) != 1:
        raise DecodeError(f"{len(found)} signatures have the tag {TAG}", format=_FORMAT)
    label, parameters = found.popitem()
    signature = decode_signature(signatures).get(label)
    if signature is None:
        raise DecodeError(f"Signature has no {label}", format=_FORMAT)
    return parameters, signature


def _required(message: HttpMessage, covered: Sequence[str]) -> list[Component]:
    response = message.status is not None
    method = Component("@method", req=response)
    first = [Component("@status"), method] if response else [method]
    present = [name for name in (*_IF_PRESENT, *covered) if message.header(name) is not None]
    return [*first, Component(WIT_HEADER), *map(Component, present)]


def _targets(message: HttpMessage) -> list[Component]:
    req = message.status is not None
    return [Component(name, req=req) for name in ("@request-target", "@path", "@query")]


def _check_covered(
    message: HttpMessage, parameters: SignatureParameters, covered: Sequence[str]
) -> None:
    whole, path, query = _targets(message)
    missing = [c for c in _required(message, covered) if c not in parameters.components]
    if whole not in parameters.components:
        missing += [c for c in (path, query) if c not in parameters.components]
    if missing:
        raise BindingError(f"{_FORMAT}: does not cover {', '.join(map(str, missing))}")


def _check_times(parameters: SignatureParameters, *, now: datetime, leeway: timedelta) -> datetime:
    created, expires = (_moment(parameters.values, name) for name in ("created", "expires"))
    if now >= expires + leeway:
        raise FreshnessError(f"{_FORMAT}: expired {(now - expires).total_seconds():.0f} s ago")
    if now < created - leeway:
        raise FreshnessError(
            f"{_FORMAT}: created in the future", remedy="compare the clocks of the two machines"
        )
    if expires - created > MAX_PROOF_LIFETIME:
        raise FreshnessError(f"{_FORMAT}: good for longer than {MAX_PROOF_LIFETIME}")
    return expires


def _moment(values: Mapping[str, Value], name: str) -> datetime:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DecodeError(f"{name} is missing or not a whole number", format=_FORMAT)
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as exc:
        raise DecodeError(f"{name} is not a time in seconds", format=_FORMAT) from exc


def _text(parameters: SignatureParameters, name: str) -> str:
    value = parameters.values.get(name)
    if not isinstance(value, str):
        raise DecodeError(f"{name} is missing or not a string", format=_FORMAT)
    return value
