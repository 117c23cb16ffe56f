# SPDX-License-Identifier: Apache-2.0
"""Protobuf messages from a table instead of generated code.

Each set lives in a pool of its own, so it never clashes with another package's copy of the same
files: a program may use Troth and another SPIFFE library side by side.

    messages = ProtobufSchema("example.proto", {"Greeting": {"text": "1 string"}})
    messages["Greeting"](text="hello")

A field is written "NUMBER TYPE", with "repeated" before the type, "map<string, TYPE>", or the name
of another message of the table; names that begin with "google." are the well-known types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from troth.errors import ApiMisuseError

__all__ = ["ProtobufSchema"]

_TYPES: Final = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
}
_FIELD: Final = re.compile(
    r"(?P<number>[1-9][0-9]*) (?P<repeated>repeated )?"
    r"(map<string, (?P<value>[\w.]+)>|(?P<type>[\w.]+))"
)
_WELL_KNOWN: Final = {module.DESCRIPTOR.name: module for module in (any_pb2, struct_pb2)}


class ProtobufSchema:
    """The messages of one file.

    Args:
        file: its name, such as "workload.proto".
        messages: by name: fields by name, each as above.
        package: of the file; may be empty.
        oneofs: by message: the fields of which at most one is set.
        more: further schemas whose messages are used, full names in the tables.
    """

    def __init__(
        self,
        file: str,
        messages: Mapping[str, Mapping[str, str]],
        *,
        package: str = "",
        oneofs: Mapping[str, tuple[str, ...]] | None = None,
        more: tuple[ProtobufSchema, ...] = (),
    ) -> None:
        """Build the types.

        Raises:
            ApiMisuseError: the table is not of the form above.
        """
        self._package = package
        self._files: list[descriptor_pb2.FileDescriptorProto] = []
        for schema in more:
            self._files += [each for each in schema.files if each not in self._files]
        if not self._files:
            self._files = [_copy(module) for module in _WELL_KNOWN.values()]
        self._files.append(self._file(file, messages, oneofs or {}))
        pool = descriptor_pool.DescriptorPool()
        try:
            for each in self._files:
                pool.Add(each)
            pool.FindFileByName(file)
        except (TypeError, KeyError) as exc:
            raise ApiMisuseError(f"{file} cannot be built: {exc}") from exc
        self._pool = pool
        self._classes: dict[str, Any] = {}

    @property
    def files(self) -> tuple[descriptor_pb2.FileDescriptorProto, ...]:
        """This file and everything that it imports, imports first."""
        return tuple(self._files)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - classes made at run time have no type
        """Return the class of a message of this file.

        Raises:
            ApiMisuseError: the file has none of that name.
        """
        full = f"{self._package}.{name}" if self._package else name
        return self.message(full)

    def message(self, full_name: str) -> Any:  # noqa: ANN401 - as above
        """Return the class of a message by its full name, well-known ones included."""
        found = self._classes.get(full_name)
        if found is None:
            try:
                descriptor = self._pool.FindMessageTypeByName(full_name)
            except KeyError as exc:
                raise ApiMisuseError(f"there is no message {full_name}") from exc
            found = self._classes[full_name] = message_factory.GetMessageClass(descriptor)
        return found

    def _file(
        self,
        file: str,
        messages: Mapping[str, Mapping[str, str]],
        oneofs: Mapping[str, tuple[str, ...]],
    ) -> descriptor_pb2.FileDescriptorProto:
        made = descriptor_pb2.FileDescriptorProto(
            name=file,
            package=self._package,
            syntax="proto3",
            dependency=[each.name for each in self._files],
        )
        for name, fields in messages.items():
            message = made.message_type.add(name=name)
            one_of = oneofs.get(name, ())
            if one_of:
                message.oneof_decl.add(name="kind")
            for field_name, text in fields.items():
                field = self._field(message, name, field_name, text)
                if field_name in one_of:
                    field.oneof_index = 0
        return made

    def _field(
        self, message: descriptor_pb2.DescriptorProto, owner: str, name: str, text: str
    ) -> FieldDescriptorProto:
        match = _FIELD.fullmatch(text)
        if match is None:
            raise ApiMisuseError(f"{owner}.{name}: {text!r} is not NUMBER TYPE")
        field = message.field.add(
            name=name, number=int(match["number"]), label=FieldDescriptorProto.LABEL_OPTIONAL
        )
        if match["value"]:
            entry = "".join(part.capitalize() for part in name.split("_")) + "Entry"
            nested = message.nested_type.add(name=entry)
            nested.options.map_entry = True
            self._set_type(nested.field.add(name="key", number=1, label=1), "string")
            self._set_type(nested.field.add(name="value", number=2, label=1), match["value"])
            field.label = FieldDescriptorProto.LABEL_REPEATED
            self._set_type(field, f"{self._full(owner)}.{entry}")
            return field
        if match["repeated"]:
            field.label = FieldDescriptorProto.LABEL_REPEATED
        self._set_type(field, match["type"])
        return field

    def _set_type(self, field: FieldDescriptorProto, kind: str) -> None:
        if kind in _TYPES:
            field.type = _TYPES[kind]
            return
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = f".{kind}" if "." in kind else f".{self._full(kind)}"

    def _full(self, name: str) -> str:
        return f"{self._package}.{name}" if self._package else name


def _copy(module: Any) -> descriptor_pb2.FileDescriptorProto:  # noqa: ANN401 - a generated module
    file = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file
