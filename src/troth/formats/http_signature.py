# SPDX-License-Identifier: Apache-2.0
"""HTTP Message Signatures: what is signed, and how the two header fields say so.

A subset, and a strict one: labels with inner lists of component names, whose only parameter is
`req`; signature parameters that are integers, strings or booleans; the derived components
`@method`, `@request-target`, `@path`, `@query` and `@status`; fields as they stand, each at most
once in a message, where several values of one name could be read in two ways.

No keys here: see `troth.identity.request_signature`.

Source: RFC 9421 sections 2, 3 and 4; RFC 9651 (structured fields); RFC 9530 (Content-Digest).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from troth.errors import ApiMisuseError, BindingError, DecodeError, LimitExceededError

__all__ = [
    "MAX_COMPONENTS",
    "MAX_FIELD_BYTES",
    "MAX_SIGNATURES",
    "Component",
    "HttpMessage",
    "SignatureParameters",
    "check_content_digest",
    "content_digest",
    "decode_signature",
    "decode_signature_input",
    "encode_signature",
    "signature_base",
]

MAX_FIELD_BYTES: Final = 16_384
"""Characters of one header field that is read here."""

MAX_SIGNATURES: Final = 4
"""Signatures that one message may carry."""

MAX_COMPONENTS: Final = 32
"""Components that one signature may cover, and parameters that it may have."""

_FORMAT: Final = "HTTP message signature"
_KEY: Final = re.compile(r"[a-z*][a-z0-9_.*-]{0,63}")
_INTEGER: Final = re.compile(r"-?[0-9]{1,15}")
_STRING: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BYTES: Final = re.compile(r":([A-Za-z0-9+/]*={0,2}):")
_NAME: Final = re.compile(r"@?[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")
_HASHES: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}

Value = int | str | bool
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that is covered.

    Attributes:
        name: a field name in lower case, or "@" and a derived component's.
        req: it is of the request that a response answers.
    """

    name: str
    req: bool = False

    def __str__(self) -> str:
        return f'"{self.name}"{";req" if self.req else ""}'


@dataclass(frozen=True, slots=True)
class SignatureParameters:
    """The covered components and the parameters of one signature, in their order."""

    components: Sequence[Component]
    values: Mapping[str, Value]

    def encode(self) -> str:
        """Return the one spelling of RFC 9651, which is also what is signed."""
        inner = " ".join(map(str, self.components))
        return f"({inner})" + "".join(f";{n}{_encoded(v)}" for n, v in self.values.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpMessage:
    """A request or a response, as far as a signature can see it.

    Attributes:
        method: of a request, as sent.
        target: of a request: path and query as they stand in its first line, "/a?b".
        status: of a response, else None.
        headers: names in any case, and values, in their order.
        request: the request that a response answers.
    """

    method: str = ""
    target: str = ""
    status: int | None = None
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    request: HttpMessage | None = None

    def header(self, name: str) -> str | None:
        """Return the value of the field `name` (lower case), or None where there is none.

        Raises:
            DecodeError: it is there more than once, or is not visible ASCII.
            LimitExceededError: it is longer than `MAX_FIELD_BYTES`.
        """
        found = [value for key, value in self.headers if key.lower() == name]
        if not found:
            return None
        if len(found) > 1:
            raise DecodeError(f"the header {name} is there {len(found)} times", format=_FORMAT)
        value = found[0].strip(" \t")
        if len(value) > MAX_FIELD_BYTES:
            raise LimitExceededError(format=name, limit="max_field_bytes", value=MAX_FIELD_BYTES)
        if not value.isascii() or not value.isprintable():
            raise DecodeError(f"the header {name} is not visible ASCII", format=_FORMAT)
        return value


def decode_signature_input(value: str) -> dict[str, SignatureParameters]:
    """Decode `Signature-Input`: what each label covers.

    Raises:
        DecodeError: not in our subset, or a name twice. LimitExceededError: too much.
    """
    return _dictionary(_Scan(value, "Signature-Input"), _parameters)


def decode_signature(value: str, *, name: str = "Signature") -> dict[str, bytes]:
    """Decode `Signature`, or another dictionary of byte sequences such as `Content-Digest`.

    Raises:
        DecodeError: something else, or a name twice. LimitExceededError: too much.
    """
    return _dictionary(_Scan(value, name), _octets)


def encode_signature(label: str, octets: bytes) -> str:
    """Return a dictionary with one byte sequence."""
    return f"{label}=:{base64.b64encode(octets).decode('ascii')}:"


def signature_base(message: HttpMessage, parameters: SignatureParameters) -> bytes:
    """Return what is signed (RFC 9421 section 2.5).

    Raises:
        DecodeError: the message has not what is covered, or has it twice.
    """
    lines = [f"{component}: {_value(message, component)}" for component in parameters.components]
    lines.append(f'"@signature-params": {parameters.encode()}')
    return "\n".join(lines).encode("ascii")


def content_digest(body: bytes) -> str:
    """Return `Content-Digest` of a body, by SHA-256."""
    return encode_signature("sha-256", hashlib.sha256(body).digest())


def check_content_digest(value: str, body: bytes) -> None:
    """Check a body against its `Content-Digest`.

    Raises:
        BindingError: it is of another body, or by none of sha-256 and sha-512.
        DecodeError: not a dictionary of byte sequences.
    """
    known = {
        name: octets
        for name, octets in decode_signature(value, name="Content-Digest").items()
        if name in _HASHES
    }
    if not known:
        raise BindingError("Content-Digest: neither sha-256 nor sha-512 is there")
    for name, octets in known.items():
        if not hmac.compare_digest(_HASHES[name](body).digest(), octets):
            raise BindingError(f"Content-Digest: the {name} is of another body")


class _Scan:
    """A place in a header field."""

    def __init__(self, text: str, name: str) -> None:
        if len(text) > MAX_FIELD_BYTES:
            raise LimitExceededError(format=name, limit="max_field_bytes", value=MAX_FIELD_BYTES)
        self._text, self._name, self._at = text.strip(" "), name, 0

    def take(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self.wrong(f"{what} was expected")
        self._at = match.end()
        return match[0]

    def literal(self, text: str) -> None:
        if not self.skip(text):
            raise self.wrong(f"{text!r} was expected")

    def skip(self, text: str) -> bool:
        here = self._text.startswith(text, self._at)
        self._at += len(text) if here else 0
        return here

    def skip_spaces(self) -> int:
        before = self._at
        while self.skip(" "):
            pass
        return self._at - before

    def sees(self, pattern: re.Pattern[str]) -> bool:
        return pattern.match(self._text, self._at) is not None

    def done(self) -> bool:
        return self._at == len(self._text)

    def wrong(self, message: str) -> DecodeError:
        return DecodeError(message, format=self._name, offset=self._at)


def _dictionary(scan: _Scan, member: Callable[[_Scan], _T]) -> dict[str, _T]:
    found: dict[str, _T] = {}
    while True:
        label = scan.take(_KEY, "a label")
        if label in found:
            raise scan.wrong(f"the label {label} is there twice")
        scan.literal("=")
        found[label] = member(scan)
        if len(found) > MAX_SIGNATURES:
            raise LimitExceededError(format=_FORMAT, limit="max_signatures", value=MAX_SIGNATURES)
        if scan.done():
            return found
        scan.take(_COMMA, "a comma")


def _parameters(scan: _Scan) -> SignatureParameters:
    scan.literal("(")
    components: list[Component] = []
    scan.skip_spaces()
    while not scan.skip(")"):
        name = _unquoted(scan.take(_STRING, "a component's name"))
        if not _NAME.fullmatch(name):
            raise scan.wrong(f"{name!r:.64} is no component's name")
        component = Component(name, req=scan.skip(";req"))
        if component in components:
            raise scan.wrong(f"{component} is covered twice")
        components.append(component)
        if len(components) > MAX_COMPONENTS:
            raise LimitExceededError(format=_FORMAT, limit="max_components", value=MAX_COMPONENTS)
        if scan.skip_spaces() == 0 and not scan.sees(re.compile(r"\)")):
            raise scan.wrong("a space was expected (the only parameter of a component is req)")
    values: dict[str, Value] = {}
    while scan.skip(";"):
        scan.skip_spaces()
        name = scan.take(_KEY, "a parameter's name")
        if name in values:
            raise scan.wrong(f"the parameter {name} is there twice")
        values[name] = _bare_item(scan) if scan.skip("=") else True
        if len(values) > MAX_COMPONENTS:
            raise LimitExceededError(format=_FORMAT, limit="max_components", value=MAX_COMPONENTS)
    return SignatureParameters(tuple(components), values)


def _bare_item(scan: _Scan) -> Value:
    if scan.sees(_STRING):
        return _unquoted(scan.take(_STRING, "a string"))
    if scan.skip("?1"):
        return True
    if scan.skip("?0"):
        return False
    return int(scan.take(_INTEGER, "a string, a whole number or a boolean"))


def _octets(scan: _Scan) -> bytes:
    text = scan.take(_BYTES, "a byte sequence")[1:-1]
    try:
        octets = base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise scan.wrong("a byte sequence is not base64") from exc
    if base64.b64encode(octets).decode("ascii") != text:
        raise scan.wrong("a byte sequence has stray bits at the end")
    return octets


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _encoded(value: Value) -> str:
    if value is True:
        return ""
    if value is False:
        return "=?0"
    if isinstance(value, int):
        return f"={value}"
    if not value.isascii() or not value.isprintable():
        raise ApiMisuseError("a signature's parameter is not printable ASCII")
    return '="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _value(message: HttpMessage, component: Component) -> str:
    if component.req:
        if message.request is None:
            raise DecodeError(f"{component} is covered, but this is no response", format=_FORMAT)
        message = message.request
    name = component.name
    if not name.startswith("@"):
        value = message.header(name)
        if value is None:
            raise DecodeError(f"{name} is covered and not there", format=_FORMAT)
        return value
    if name == "@status" and message.status is not None:
        return f"{message.status:03d}"
    if message.status is None and message.method:
        path, mark, query = message.target.partition("?")
        derived = {
            "@method": message.method,
            "@request-target": message.target,
            "@path": path or "/",
            "@query": f"?{query}" if mark else "?",
        }
        if name in derived and derived[name].isascii() and derived[name].isprintable():
            return derived[name]
    raise DecodeError(f"{component} is not a component that is signed here", format=_FORMAT)
