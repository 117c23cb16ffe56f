# SPDX-License-Identifier: Apache-2.0
"""Events of a boot log in words, and the few facts that are read out of them.

Source: TCG PC Client Platform Firmware Profile, revision 1.06, sections 3.3.4 (PCR usage) and
10.4 (event types); UEFI Specification 2.10, section 10 (device paths) and 3.3 (variables); GRUB
manual, "Measuring boot components".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from troth.formats.tpm.algorithms import TpmHash
from troth.formats.tpm.event_log import Event, EventLog

__all__ = [
    "EVENT_TYPES",
    "describe_event",
    "event_type",
    "is_debugger_allowed",
    "name_event",
    "secure_boot",
]

EV_SEPARATOR: Final = 0x04
EV_IPL: Final = 0x0D
EV_EFI_VARIABLE_DRIVER_CONFIG: Final = 0x80000001
EV_EFI_ACTION: Final = 0x80000007

EVENT_TYPES: Final[Mapping[int, str]] = {
    0x00: "EV_PREBOOT_CERT",
    0x01: "EV_POST_CODE",
    0x03: "EV_NO_ACTION",
    EV_SEPARATOR: "EV_SEPARATOR",
    0x05: "EV_ACTION",
    0x06: "EV_EVENT_TAG",
    0x07: "EV_S_CRTM_CONTENTS",
    0x08: "EV_S_CRTM_VERSION",
    0x09: "EV_CPU_MICROCODE",
    0x0A: "EV_PLATFORM_CONFIG_FLAGS",
    0x0B: "EV_TABLE_OF_DEVICES",
    0x0C: "EV_COMPACT_HASH",
    EV_IPL: "EV_IPL",
    0x0E: "EV_IPL_PARTITION_DATA",
    0x0F: "EV_NONHOST_CODE",
    0x10: "EV_NONHOST_CONFIG",
    0x11: "EV_NONHOST_INFO",
    0x12: "EV_OMIT_BOOT_DEVICE_EVENTS",
    0x13: "EV_POST_CODE2",
    EV_EFI_VARIABLE_DRIVER_CONFIG: "EV_EFI_VARIABLE_DRIVER_CONFIG",
    0x80000002: "EV_EFI_VARIABLE_BOOT",
    0x80000003: "EV_EFI_BOOT_SERVICES_APPLICATION",
    0x80000004: "EV_EFI_BOOT_SERVICES_DRIVER",
    0x80000005: "EV_EFI_RUNTIME_SERVICES_DRIVER",
    0x80000006: "EV_EFI_GPT_EVENT",
    EV_EFI_ACTION: "EV_EFI_ACTION",
    0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB",
    0x80000009: "EV_EFI_HANDOFF_TABLES",
    0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
    0x8000000B: "EV_EFI_HANDOFF_TABLES2",
    0x8000000C: "EV_EFI_VARIABLE_BOOT2",
    0x80000010: "EV_EFI_HCRTM_EVENT",
    0x800000E0: "EV_EFI_VARIABLE_AUTHORITY",
    0x800000E1: "EV_EFI_SPDM_FIRMWARE_BLOB",
    0x800000E2: "EV_EFI_SPDM_FIRMWARE_CONFIG",
}
"""Event types by number."""

_GLOBAL_VARIABLE: Final = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
_DEBUG_MODES: Final = (b"UEFI Debug Mode", b"UEFI Debug Mode\0")
_VARIABLE_HEAD: Final = struct.Struct("<16sQQ")
_IMAGE_HEAD: Final = struct.Struct("<QQQQ")
_NODE_HEAD: Final = struct.Struct("<BBH")
_FILE_PATH: Final = (4, 4)
_END_OF_PATH: Final = 0x7F
_MAX_TEXT: Final = 400
_MAX_VARIABLE_NAME: Final = 256
_SHORTEST_TEXT: Final = 3
_LINES: Final = str.maketrans("\t\n\r", "   ")
# What GRUB writes before the text that it measures.
_GRUB_PREFIXES: Final = (b"grub_cmd: ", b"kernel_cmdline: ", b"module_cmdline: ")


@dataclass(frozen=True, slots=True)
class _Variable:
    guid: UUID
    name: str
    value: bytes


def event_type(number: int) -> str:
    """Return the name of an event type, or its number."""
    return EVENT_TYPES.get(number, f"event type {number:#x}")


def describe_event(event: Event, hash_: TpmHash) -> str:
    """Return the event on one line: number, type and what its data says, cut to a bounded length.

    Data that its digest does not cover may be a lie; the line then says so.
    """
    doubt = "" if _is_covered(event, hash_) else " (its digest does not cover this text)"
    return f"event {event.number} {name_event(event)}{doubt if _text(event) else ''}"


def name_event(event: Event) -> str:
    """Return type and text of the event, without its number."""
    return f"{event_type(event.type)} {_text(event)}".rstrip()


def secure_boot(log: EventLog, hash_: TpmHash) -> bool | None:
    """Return whether the firmware says in PCR 7 that Secure Boot is on; None where it does not.

    The log must reproduce the quoted PCR 7 for this to mean anything: the caller checks that.
    Only an event whose digest covers its data counts, and only before the first separator.
    """
    for event in log.by_register.get(7, ()):
        if event.type == EV_SEPARATOR:
            return None
        if event.type != EV_EFI_VARIABLE_DRIVER_CONFIG or not event.is_data_measured(hash_):
            continue
        variable = _variable(event.data)
        if variable and (variable.guid, variable.name) == (_GLOBAL_VARIABLE, "SecureBoot"):
            return variable.value == b"\x01"
    return None


def is_debugger_allowed(log: EventLog, hash_: TpmHash) -> bool:
    """Say whether the firmware measured into PCR 7 that a debugger may be attached."""
    digests = {hash_.digest(text) for text in _DEBUG_MODES}
    return any(
        event.type == EV_EFI_ACTION and event.digests.get(hash_.id) in digests
        for event in log.by_register.get(7, ())
    )


def _is_covered(event: Event, hash_: TpmHash) -> bool:
    if event.is_data_measured(hash_):
        return True
    if event.type != EV_IPL:
        return False
    text = event.data.rstrip(b"\0")
    candidates = [text, *(text[len(each) :] for each in _GRUB_PREFIXES if text.startswith(each))]
    return any(event.is_data_measured(hash_, each) for each in candidates)


def _text(event: Event) -> str:
    describe = _DESCRIPTIONS.get(event.type, _plain)
    return _shortened(describe(event.data))


def _shortened(text: str) -> str:
    text = "".join(each if each.isprintable() else " " for each in text[: 2 * _MAX_TEXT]).strip()
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."


def _plain(data: bytes) -> str:
    """Return the ASCII or UCS-2 text that the data begins with, or else its first octets."""
    head = data[: 4 * _MAX_TEXT]
    narrow = head.partition(b"\0")[0]
    if len(narrow) >= _SHORTEST_TEXT and _is_text(text := narrow.decode("ascii", "replace")):
        return text
    wide = head[: len(head) // 2 * 2].decode("utf-16-le", "replace").partition("\0")[0]
    if len(wide) >= _SHORTEST_TEXT and wide.isascii() and _is_text(wide):
        return wide
    return head[:16].hex() + ("..." if len(data) > 16 else "")


def _is_text(text: str) -> bool:
    return text.translate(_LINES).isprintable() and "\ufffd" not in text


def _described_variable(data: bytes) -> str:
    variable = _variable(data)
    if variable is None:
        return _plain(data)
    value = variable.value
    shown = value.hex() if len(value) <= 8 else f"{len(value)} octets"
    return f"{variable.name} = {shown or 'empty'}"


def _variable(data: bytes) -> _Variable | None:
    """Return a UEFI_VARIABLE_DATA, or None where it is none."""
    if len(data) < _VARIABLE_HEAD.size:
        return None
    guid, characters, size = _VARIABLE_HEAD.unpack_from(data)
    end = _VARIABLE_HEAD.size + 2 * characters
    if characters > _MAX_VARIABLE_NAME or end + size != len(data):
        return None
    name = data[_VARIABLE_HEAD.size : end].decode("utf-16-le", "replace")
    return _Variable(UUID(bytes_le=guid), name, data[end:])


def _image(data: bytes) -> str:
    """Return the file names in the device path of a UEFI_IMAGE_LOAD_EVENT."""
    if len(data) < _IMAGE_HEAD.size:
        return _plain(data)
    *_, size = _IMAGE_HEAD.unpack_from(data)
    path = data[_IMAGE_HEAD.size : _IMAGE_HEAD.size + min(size, 1024)]
    names: list[str] = []
    at = 0
    while at + _NODE_HEAD.size <= len(path):
        kind, sub_kind, length = _NODE_HEAD.unpack_from(path, at)
        if kind == _END_OF_PATH or length < _NODE_HEAD.size:
            break
        if (kind, sub_kind) == _FILE_PATH:
            body = path[at + _NODE_HEAD.size : at + length]
            names.append(body[: len(body) // 2 * 2].decode("utf-16-le", "replace").rstrip("\0"))
        at += length
    return "\\".join(names) or "an image that is no file"


def _tagged(data: bytes) -> str:
    """Return a TCG_PCClientTaggedEvent."""
    if len(data) < 8:
        return _plain(data)
    tag, size = struct.unpack_from("<II", data)
    return f"tag {tag:#x}: {_plain(data[8 : 8 + size])}"


def _separator(data: bytes) -> str:
    return "" if data == bytes(4) else data[:8].hex()


def _blob2(data: bytes) -> str:
    """Return the description of a UEFI_PLATFORM_FIRMWARE_BLOB2."""
    if not data or 1 + data[0] > len(data):
        return _plain(data)
    return _plain(data[1 : 1 + data[0]])


_DESCRIPTIONS: Final[Mapping[int, Callable[[bytes], str]]] = {
    0x06: _tagged,
    EV_SEPARATOR: _separator,
    EV_EFI_VARIABLE_DRIVER_CONFIG: _described_variable,
    0x80000002: _described_variable,
    0x80000003: _image,
    0x80000004: _image,
    0x80000005: _image,
    0x8000000A: _blob2,
    0x8000000C: _described_variable,
    0x800000E0: _described_variable,
}
