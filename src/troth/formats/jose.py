# SPDX-License-Identifier: Apache-2.0
"""Signed JSON Web Tokens, in the one form that Troth takes: JWS compact serialization.

What decides, and what does not:

* The caller pins the keys and allows the algorithms. `kid` only selects among the caller's keys;
  `jwk`, `jku`, `x5c` and `x5u` are never read.
* A key serves the algorithms of its own type and curve, no others. There is no HMAC here, so no
  public key can be taken for a shared secret, and `none` is not an algorithm.
* A critical header parameter is refused: we understand none (RFC 7515 section 4.1.11).
* Every part has exactly one spelling: strict JSON, canonical base64url.

Own code, because libraries let repeated JSON names through and a public-key operation should be
the only cost worth counting.

Source: RFC 7515, RFC 7518 section 3, RFC 7519, RFC 8037, RFC 8725 (best current practices).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from troth.errors import (
    ApiMisuseError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
)
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.key_selection import MAX_KEYS_TRIED, select_keys
from troth.formats.limits import DEFAULT_LIMITS, Limits
from troth.formats.signatures import verify_signature
from troth.formats.signer import Signer
from troth.formats.strict_json import decode_json, decode_json_object, encode_json
from troth.formats.verification_key import VerificationKey

__all__ = [
    "ALGORITHMS",
    "DEFAULT_ALGORITHMS",
    "HEADER_LIMITS",
    "MAX_KEYS_TRIED",
    "check_times",
    "decode_json",
    "sign_jwt",
    "verify_jwt",
]

DEFAULT_ALGORITHMS: Final = frozenset(
    {"ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "PS384", "PS512"}
)
"""What is allowed when a caller names nothing: no RSASSA-PKCS1-v1_5."""

ALGORITHMS: Final = DEFAULT_ALGORITHMS | {"RS256", "RS384", "RS512"}
"""Every algorithm that a caller may allow."""

HEADER_LIMITS: Final = Limits(max_bytes=4096, max_items=256, max_depth=4)
"""What decoding the header of one token may cost."""

_YEAR_10000: Final = 253_402_300_800


def sign_jwt(
    claims: Mapping[str, object], signer: Signer, *, header: Mapping[str, object] | None = None
) -> str:
    """Sign `claims` as a compact JWT. `alg` and `kid` come from the signer, `typ` is "JWT".

    Args:
        claims: JSON values; written with sorted names.
        signer: holds the key and states the algorithm.
        header: further header parameters; may set `typ`, must not set `alg`, `kid` or `crit`.

    Raises:
        ApiMisuseError: a header parameter that is not the caller's, or a claim that is not JSON.
    """
    parameters = {"typ": "JWT", **(header or {})}
    if taken := parameters.keys() & {"alg", "kid", "crit", "b64"}:
        raise ApiMisuseError(f"the header parameter {min(taken)} is not the caller's to set")
    if signer.algorithm not in ALGORITHMS:
        raise ApiMisuseError(f"{signer.algorithm} is not a JWS algorithm that Troth writes")
    parameters["alg"] = signer.algorithm
    if signer.key_id:
        parameters["kid"] = signer.key_id
    signing_input = (
        f"{encode_base64url(encode_json(parameters))}.{encode_base64url(encode_json(claims))}"
    )
    signature = signer.sign(signing_input.encode("ascii"))
    return f"{signing_input}.{encode_base64url(signature)}"


def verify_jwt(
    token: str | bytes,
    keys: Sequence[VerificationKey],
    *,
    algorithms: Collection[str] = DEFAULT_ALGORITHMS,
    typ: str | None = None,
    format: str = "JWT",
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the header and claims of a token that one of `keys` signed.

    Does NOT check any claim, times included: see `check_times`. No key means refusal.

    Args:
        token: JWS compact serialization.
        keys: the keys that this token may be signed with; at most 8 are tried.
        algorithms: what is allowed of `ALGORITHMS`.
        typ: the media type that the header must name, "application/" left out; None asks for
            nothing, which is right only where no other kind of token is signed with these keys.
        format: what the token should be, for messages.
        limits: what decoding may cost; `max_bytes` holds for the token and for its payload.

    Raises:
        SignatureError: the algorithm is not allowed, no key fits, or no signature verifies.
        DecodeError: not a JWT, or ambiguous; the payload is decoded only after the signature held.
        UnsupportedError: a critical header parameter, or another `typ`.
    """
    if not ALGORITHMS.issuperset(algorithms):
        unknown = ", ".join(sorted(set(algorithms) - ALGORITHMS))
        raise ApiMisuseError(f"not algorithms that Troth knows: {unknown}")
    text = _text(token, format, limits)
    parts = text.split(".", 3)
    if len(parts) != 3:
        raise DecodeError("does not have three parts separated by dots", format=format)
    header = _decode_header(parts[0], format)
    algorithm = _allowed_algorithm(header, algorithms, format)
    if typ is not None:
        _check_typ(header, typ, format)
    signature = decode_base64url(parts[2], format=format)
    signing_input = text[: len(parts[0]) + 1 + len(parts[1])].encode("ascii")
    refusal: SignatureError | None = None
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise DecodeError("kid is not text", format=format)
    for key in select_keys(keys, algorithm=algorithm, key_id=kid, format=format):
        try:
            verify_signature(key, algorithm, signature, signing_input, format=format)
        except SignatureError as exc:
            refusal = exc
            continue
        payload = decode_base64url(parts[1], format=format)
        return header, decode_json_object(payload, format=format, limits=limits)
    raise SignatureError(
        f"{format}: the {algorithm} signature does not verify under any key that fits",
        remedy="check that the signer's current public key is the one configured here",
    ) from refusal


def check_times(
    claims: Mapping[str, object],
    *,
    now: datetime,
    leeway: timedelta = timedelta(0),
    require_exp: bool,
    format: str = "JWT",
) -> None:
    """Check that `now` lies within `nbf` … `exp`, and that `iat` is not in the future.

    Args:
        claims: verified claims.
        now: timezone-aware.
        leeway: how far the two clocks may be apart.
        require_exp: refuse a token that never ends.
        format: what the token is, for messages.

    Raises:
        FreshnessError: outside that time.
        DecodeError: a time that is not a number, or no `exp` where it is required.

    Spec: RFC 7519 sections 4.1.4, 4.1.5 and 4.1.6.
    """
    clock, slack = now.timestamp(), leeway.total_seconds()
    expires = _time(claims, "exp", format)
    if expires is None and require_exp:
        raise DecodeError("has no exp claim", format=format)
    if expires is not None and clock >= expires + slack:
        raise FreshnessError(f"{format}: expired {clock - expires:.0f} s ago")
    for name, words in (("nbf", "is not valid yet"), ("iat", "was issued in the future")):
        time = _time(claims, name, format)
        if time is not None and clock < time - slack:
            raise FreshnessError(
                f"{format}: {words}: {name} is {time - clock:.0f} s ahead",
                remedy="compare the clocks of the two machines",
            )


def _text(token: str | bytes, format: str, limits: Limits) -> str:
    if len(token) > limits.max_bytes:
        raise LimitExceededError(format=format, limit="max_bytes", value=limits.max_bytes)
    if isinstance(token, bytes):
        try:
            return token.decode("ascii")
        except UnicodeDecodeError as exc:
            raise DecodeError("is not ASCII", format=format, offset=exc.start) from exc
    if not token.isascii():
        raise DecodeError("is not ASCII", format=format)
    return token


def _decode_header(part: str, format: str) -> dict[str, object]:
    header = decode_json_object(
        decode_base64url(part, format=format), format=f"{format} header", limits=HEADER_LIMITS
    )
    if "crit" in header:
        raise UnsupportedError("has a critical header parameter", format=format)
    if "b64" in header:  # RFC 7797: without "crit" it means nothing, with it nothing we know
        raise UnsupportedError("has the header parameter b64", format=format)
    return header


def _allowed_algorithm(
    header: Mapping[str, object], algorithms: Collection[str], format: str
) -> str:
    name = header.get("alg")
    if not isinstance(name, str):
        raise DecodeError("has no alg header parameter", format=format)
    if name not in algorithms:
        allowed = ", ".join(sorted(algorithms)) or "none"
        raise SignatureError(f"{format}: alg {name[:32]!r} is not allowed (allowed: {allowed})")
    return name


def _check_typ(header: Mapping[str, object], typ: str, format: str) -> None:
    """RFC 7515 section 4.1.9: media types compare without case; "application/" may be left out."""
    actual = header.get("typ")
    short = actual.lower().removeprefix("application/") if isinstance(actual, str) else None
    if short != typ.lower().removeprefix("application/"):
        raise UnsupportedError(
            f"is of type {str(actual)[:64]!r}, not {typ!r}: another kind of token", format=format
        )


def _time(claims: Mapping[str, object], name: str, format: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    # bool is an int to Python
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DecodeError(f"{name} is not a number", format=format)
    if not 0 <= value < _YEAR_10000:
        raise DecodeError(f"{name} is not a time in seconds", format=format)
    return value
