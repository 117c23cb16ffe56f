# SPDX-License-Identifier: Apache-2.0
"""Compare the gate's hooks and callbacks with what an Envoy binary itself says about them.

Envoy checks neither: a hook of another type, or a missing callback, is found by a crash. But the
type of every hook that a binary looks up is embedded in it since 1.40 (the text of a C++ template
argument), and the callbacks are in its dynamic symbol table. What no binary tells (the types of
callbacks; in 1.39 those of hooks) is left to the tests that run the gate in stock Envoys.

Usage: python tests/native/check_abi.py ENVOY…
"""

from __future__ import annotations

import mmap
import re
import struct
import sys
from pathlib import Path

__all__ = ["Interface", "embedded_types", "exported_symbols", "problems"]

GATE = Path(__file__).resolve().parents[2] / "native" / "gate"
PREFIX = "envoy_dynamic_module_type_"
TYPES = {
    "size_t": "unsigned long",
    "uint64_t": "unsigned long",
    "envoy_buffer": f"{PREFIX}envoy_buffer",
    "status": f"{PREFIX}on_network_filter_data_status",
    "close_event": f"{PREFIX}network_connection_event",
}
# Called only where it is there.
OPTIONAL = {"envoy_dynamic_module_callback_transport_socket_get_connection_id"}


class Interface:
    """What the gate's sources define and use."""

    def __init__(self, sources: Path = GATE) -> None:
        header = (sources / "envoy_abi.h").read_text()
        code = (sources / "filter.c").read_text()
        self.callbacks = {
            f"envoy_dynamic_module_callback_{name}"
            for name in re.findall(r"^CALLBACK\([^,]+, (\w+)\)", header, re.MULTILINE)
        }
        self.hooks = {
            name: _prototype(name, result, parameters)
            for result, name, parameters in re.findall(
                r"^HOOK\(([^,]+), (\w+)\)\(([^)]*)\)", code, re.MULTILINE
            )
        }


def _prototype(name: str, result: str, parameters: str) -> str:
    """The hook's type in the words of Envoy's compiler."""
    types = [] if parameters == "void" else [_type(p) for p in parameters.split(",")]
    if name.endswith("_event"):  # C's int stands for Envoy's enumerations
        types[-1] = TYPES["close_event"]
    result = TYPES["status"] if result == "int" else result.strip()
    space = "" if result.endswith("*") else " "
    return f"{result}{space}(*)({', '.join(types)})"


def _type(parameter: str) -> str:
    base = re.sub(r"\w+$", "", parameter.strip()).strip()
    return TYPES.get(base, base)


def exported_symbols(binary: mmap.mmap) -> set[str]:
    """Names in the dynamic symbol table of a 64-bit little-endian ELF file."""
    if binary[:6] != b"\x7fELF\x02\x01":
        message = "not a 64-bit little-endian ELF file"
        raise ValueError(message)
    table, size, count = struct.unpack_from("<Q10xHH", binary, 0x28)[0:3]
    sections = [struct.unpack_from("<IIQQQQIIQQ", binary, table + i * size) for i in range(count)]
    names = set()
    for section in sections:
        if section[1] != 11:  # SHT_DYNSYM
            continue
        offset, length, strings = section[4], section[5], sections[section[6]][4]
        for at in range(offset, offset + length, 24):
            name, _info, _other, index = struct.unpack_from("<IBBH", binary, at)
            if index != 0:
                start = strings + name
                names.add(binary[start : binary.find(b"\0", start)].decode())
    return names


def embedded_types(binary: mmap.mmap) -> set[str]:
    """Types of the hooks that a binary looks up; empty before Envoy 1.40."""
    pattern = rb"getFunctionPointer\([^\[]*\[T = ([^\]]+)\]"
    return {found.decode() for found in re.findall(pattern, binary)}


def problems(envoy: Path, interface: Interface | None = None) -> list[str]:
    """What of the gate's interface this Envoy does not have, in sentences."""
    interface = interface or Interface()
    with envoy.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as binary:
        types = embedded_types(binary)
        missing = interface.callbacks - OPTIONAL - exported_symbols(binary)
        found = [f"{name} is not exported" for name in sorted(missing)]
        for name, prototype in interface.hooks.items():
            if binary.find(f"envoy_dynamic_module_on_{name}\0".encode()) < 0:
                found.append(f"no hook {name} is looked up")
            elif types and prototype not in types:
                found.append(f"hook {name}: no hook has the type {prototype}")
    return found


if __name__ == "__main__":
    status = 0
    for argument in sys.argv[1:]:
        for problem in problems(Path(argument)):
            sys.stdout.write(f"{argument}: {problem}\n")
            status = 1
    sys.exit(status)
