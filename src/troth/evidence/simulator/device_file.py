# SPDX-License-Identifier: Apache-2.0
"""A simulated platform as a JSON text: the "device file" that `troth simulate` keeps.

INSECURE: the private keys stand in it in the clear. Whoever reads the file is the device. Octets
are lower-case hex, private keys PKCS#8 PEM, everything else as in the options::

    {
      "format": "troth-simulated-platform/1",
      "warning": "…",
      "scheme": "psa" | "cca",
      "options": {"model": …, "components": [{"name": …, "digest": …}, …], …},
      "attestation-key": PEM, or hex of a symmetric key,
      "realm-key": PEM (cca only),
      "boot-session": hex
    }

An option that is left out has its default; a name that is not known is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TypeVar

from troth.errors import ApiMisuseError, DecodeError, UnsupportedError
from troth.evidence.anchor import HMAC
from troth.evidence.simulator.keys import SimulatedKeys, private_pem, read_private_pem
from troth.evidence.simulator.options import CcaOptions, PsaOptions, SimulatedComponent
from troth.evidence.simulator.platform import SimulatedPlatform
from troth.formats.strict_json import decode_json_object

__all__ = ["DEVICE_FILE_FORMAT", "from_json", "to_json"]

DEVICE_FILE_FORMAT = "troth-simulated-platform/1"

_WARNING = (
    "INSECURE: a simulated platform with its private keys. For tests and demonstrations only."
)
_OPTIONS: Mapping[str, type[PsaOptions | CcaOptions]] = {
    "psa": PsaOptions,
    "cca": CcaOptions,
}
_KNOWN = {
    "format",
    "warning",
    "scheme",
    "options",
    "attestation-key",
    "realm-key",
    "boot-session",
}

_T = TypeVar("_T")


def to_json(platform: SimulatedPlatform) -> str:
    """Return the device file. It holds private keys: give it to its owner alone (mode 0600)."""
    keys = platform.keys
    file: dict[str, object] = {
        "format": DEVICE_FILE_FORMAT,
        "warning": _WARNING,
        "scheme": platform.scheme,
        "options": _plain(platform.options),
        "attestation-key": (
            keys.attestation.hex()
            if isinstance(keys.attestation, bytes)
            else private_pem(keys.attestation)
        ),
        "boot-session": platform.boot_session.hex(),
    }
    if keys.realm is not None:
        file["realm-key"] = private_pem(keys.realm)
    return json.dumps(file, indent=2, ensure_ascii=False) + "\n"


def from_json(text: str | bytes, *, source: str) -> SimulatedPlatform:
    """Read a device file.

    Args:
        text: its content.
        source: its path, for messages.

    Raises:
        DecodeError: not such a file; the error names the member.
        UnsupportedError: a later format, or a scheme that the simulator does not have.
    """
    data = text.encode() if isinstance(text, str) else text
    file = _Members(decode_json_object(data, format=source), source, "")
    if file.text("format") != DEVICE_FILE_FORMAT:
        raise UnsupportedError(
            f'"format" is {file.text("format")!r}; expected {DEVICE_FILE_FORMAT!r}', format=source
        )
    file.refuse_others(_KNOWN)
    kind = _OPTIONS.get(file.text("scheme"))
    if kind is None:
        raise UnsupportedError(
            f'"scheme" is {file.text("scheme")!r}; expected "psa" or "cca"', format=source
        )
    options = _options(kind, file.members("options"))
    key = file.text("attestation-key")
    symmetric = isinstance(options, PsaOptions) and options.algorithm in HMAC
    keys = SimulatedKeys(
        attestation=(
            file.octets("attestation-key")
            if symmetric
            else read_private_pem(key, source=f"{source}: attestation-key")
        ),
        realm=(
            read_private_pem(file.text("realm-key"), source=f"{source}: realm-key")
            if kind is CcaOptions
            else None
        ),
    )
    try:
        return SimulatedPlatform(
            options=options, keys=keys, boot_session=file.octets("boot-session"), source=source
        )
    except (ApiMisuseError, DecodeError) as exc:
        raise DecodeError(str(exc), format=source) from exc


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    if isinstance(value, PsaOptions | CcaOptions | SimulatedComponent):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


class _Members:
    """The members of one JSON object; every refusal says where it stands."""

    def __init__(self, members: Mapping[str, object], source: str, place: str) -> None:
        self._members, self._source, self._place = members, source, place

    def refuse_others(self, known: set[str]) -> None:
        others = sorted(self._members.keys() - known)
        if others:
            raise self._error(others[0], f"is not known; known are {', '.join(sorted(known))}")

    def has(self, name: str) -> bool:
        return name in self._members

    def text(self, name: str) -> str:
        return self._typed(name, str, "a text")

    def integer(self, name: str) -> int:
        value = self._typed(name, int, "an integer")
        if isinstance(value, bool):
            raise self._error(name, "is not an integer")
        return value

    def boolean(self, name: str) -> bool:
        return self._typed(name, bool, "true or false")

    def octets(self, name: str) -> bytes:
        return _hex(self.text(name), lambda: self._error(name, "is not lower-case hex"))

    def octet_strings(self, name: str) -> tuple[bytes, ...]:
        return tuple(
            _hex(each, lambda: self._error(name, "is not a list of lower-case hex"))
            for each in self._typed(name, list, "a list")
        )

    def members(self, name: str) -> _Members:
        value: dict[str, object] = self._typed(name, dict, "an object")
        return _Members(value, self._source, self._at(name))

    def each_members(self, name: str) -> list[_Members]:
        entries: list[object] = self._typed(name, list, "a list")
        result = []
        for index, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise self._error(name, f"entry {index} is not an object")
            result.append(_Members(entry, self._source, f"{self._at(name)}[{index}]"))
        return result

    def _typed(self, name: str, kind: type[_T], expected: str) -> _T:
        if name not in self._members:
            raise self._error(name, "is missing")
        value = self._members[name]
        if not isinstance(value, kind):
            raise self._error(name, f"is not {expected}")
        return value

    def _at(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name

    def _error(self, name: str, problem: str) -> DecodeError:
        return DecodeError(f'"{self._at(name)}" {problem}', format=self._source)


def _options(kind: type[PsaOptions | CcaOptions], members: _Members) -> PsaOptions | CcaOptions:
    defaults = kind()
    names = {field.name for field in fields(kind)}
    members.refuse_others(names)
    values: dict[str, object] = {}
    for name in names:
        if members.has(name):
            values[name] = _option(members, name, getattr(defaults, name))
    return kind(**values)  # type: ignore[arg-type] # each value has the type of its default


def _option(members: _Members, name: str, default: object) -> object:
    if name == "components":
        return tuple(_component(each) for each in members.each_members(name))
    if isinstance(default, bool):
        return members.boolean(name)
    if isinstance(default, int):
        return members.integer(name)
    if isinstance(default, bytes):
        return members.octets(name)
    if isinstance(default, tuple):
        return members.octet_strings(name)
    return members.text(name)


def _component(members: _Members) -> SimulatedComponent:
    members.refuse_others({field.name for field in fields(SimulatedComponent)})
    return SimulatedComponent(
        name=members.text("name"),
        version=members.text("version"),
        digest=members.octets("digest"),
        signer_id=members.octets("signer_id"),
        hash_algorithm=members.text("hash_algorithm"),
    )


def _hex(text: object, error: Callable[[], DecodeError]) -> bytes:
    try:
        octets = bytes.fromhex(text) if isinstance(text, str) else None
    except ValueError as exc:
        raise error() from exc
    if octets is None or octets.hex() != text:
        raise error()
    return octets
