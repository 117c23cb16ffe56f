# SPDX-License-Identifier: Apache-2.0
"""Reader of CBOR diagnostic notation, as far as the published examples use it.

It writes CBOR in the order and with the repetitions of the text, so it can also spell what our
own encoder refuses to write. Known: integers, floats, "text", h'..', b64'..', 'bytes', arrays,
maps, n(tag), << embedded >>, null, true, false, undefined, simple(n), `_` after an opening
bracket for indefinite length, comments in /slashes/ and after #.

Source: RFC 8949 section 8; RFC 8610 appendix G.
"""

from __future__ import annotations

import base64
import json
import re
import struct

from troth.formats import cbor
from troth.formats.limits import RIM_LIMITS, Limits

_BLANK = re.compile(r"(?:\s|/[^/]*/|#[^\n]*)*")
_NUMBER = re.compile(r"-?(?:0x[0-9a-fA-F]+|0b[01]+|[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BYTES = re.compile(r"(h|b64|)'([^']*)'")
_NAMES = {"false": b"\xf4", "true": b"\xf5", "null": b"\xf6", "undefined": b"\xf7"}
_NAMES |= {"NaN": b"\xf9\x7e\x00", "Infinity": b"\xf9\x7c\x00", "-Infinity": b"\xf9\xfc\x00"}
_NAME = re.compile("|".join(map(re.escape, _NAMES)))
_SIMPLE = re.compile(r"simple\(([0-9]+)\)")


def read_diag(text: str, *, limits: Limits = RIM_LIMITS) -> object:
    """Return the value that the notation stands for, as `cbor.decode` gives it."""
    return cbor.decode(encode_diag(text), format="diagnostic notation", limits=limits)


def encode_diag(text: str) -> bytes:
    """Return the CBOR that the notation stands for."""
    scanner = _Scanner(text)
    encoded = scanner.item()
    scanner.blank()
    if scanner.at != len(text):
        raise scanner.error("the end")
    return encoded


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def error(self, wanted: str) -> ValueError:
        return ValueError(f"expected {wanted} at {self.at}: {self.text[self.at : self.at + 20]!r}")

    def blank(self) -> None:
        found = _BLANK.match(self.text, self.at)
        assert found is not None
        self.at = found.end()

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if found := pattern.match(self.text, self.at):
            self.at = found.end()
        return found

    def skip(self, token: str) -> bool:
        self.blank()
        if not self.text.startswith(token, self.at):
            return False
        self.at += len(token)
        return True

    def item(self) -> bytes:
        self.blank()
        if self.skip("<<"):
            members, _ = self.members(">>")
            return head(2, len(content := b"".join(members))) + content
        if self.skip("["):
            return self.container(4, "]")
        if self.skip("{"):
            return self.container(5, "}")
        if found := self.take(_NAME):
            return _NAMES[found[0]]
        if found := self.take(_SIMPLE):
            return head(7, int(found[1]))
        if found := self.take(_TEXT):
            encoded = json.loads(found[0], strict=False).encode()
            return head(3, len(encoded)) + encoded
        if found := self.take(_BYTES):
            octets = _octets(found[1], found[2])
            return head(2, len(octets)) + octets
        if found := self.take(_NUMBER):
            return self.number(found[0])
        raise self.error("a data item")

    def number(self, text: str) -> bytes:
        if not text.lstrip("-").startswith("0x") and re.search("[.eE]", text):
            return b"\xfb" + struct.pack(">d", float(text))
        value = int(text, 0)
        if value >= 0 and self.skip("("):
            content = self.item()
            if not self.skip(")"):
                raise self.error("the end of a tag")
            return head(6, value) + content
        return head(0, value) if value >= 0 else head(1, -1 - value)

    def container(self, major: int, end: str) -> bytes:
        members, indefinite = self.members(end)
        content = b"".join(members)
        if indefinite:
            return bytes([major << 5 | 31]) + content + b"\xff"
        return head(major, len(members) // (major - 3)) + content

    def members(self, end: str) -> tuple[list[bytes], bool]:
        indefinite = self.skip("_")
        members: list[bytes] = []
        while not self.skip(end):
            members.append(self.item())
            if end == "}":
                if not self.skip(":"):
                    raise self.error("a colon")
                members.append(self.item())
            self.skip(",")
        return members, indefinite


def head(major: int, argument: int) -> bytes:
    """Return the shortest head of a data item."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * width):
            return bytes([major << 5 | info]) + argument.to_bytes(width)
    raise ValueError(f"{argument} does not fit 64 bits")


def _octets(prefix: str, text: str) -> bytes:
    if prefix == "h":
        return bytes.fromhex(re.sub(r"\s|/[^/]*/|#[^\n]*", "", text))
    if prefix == "b64":
        plain = re.sub(r"\s|=", "", text)
        return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
    return text.encode()
