# SPDX-License-Identifier: Apache-2.0
"""Messages from a table are the messages that protoc would make of the same file."""

from __future__ import annotations

import pytest
from google.protobuf import any_pb2, wrappers_pb2
from google.protobuf.message import DecodeError as ProtobufDecodeError

from troth.control_plane.protobuf_schema import ProtobufSchema
from troth.errors import ApiMisuseError

SCHEMA = ProtobufSchema(
    "test.proto",
    {
        "Inner": {"text": "1 string"},
        "Outer": {
            "many": "1 repeated Inner",
            "by_name": "2 map<string, Inner>",
            "plain_map": "15 map<string, bytes>",
            "any": "3 google.protobuf.Any",
            "flag": "4 bool",
            "number": "5 int32",
            "one": "6 Inner",
            "other": "7 string",
        },
    },
    package="test",
    oneofs={"Outer": ("one", "other")},
)


def test_octets_are_those_of_the_wire_format() -> None:
    message = SCHEMA["Outer"](
        many=[SCHEMA["Inner"](text="a")], plain_map={"k": b"v"}, flag=True, number=-1
    )
    assert message.SerializeToString(deterministic=True) == bytes.fromhex(
        "0a030a0161200128ffffffffffffffffff017a060a016b120176"
    )
    assert SCHEMA["Outer"].FromString(message.SerializeToString()) == message


def test_maps_of_messages_and_wrapped_messages() -> None:
    message = SCHEMA["Outer"]()
    message.by_name["x"].text = "y"
    message.any.Pack(SCHEMA["Inner"](text="z"))
    again = SCHEMA["Outer"].FromString(message.SerializeToString())
    assert again.by_name["x"].text == "y"
    assert again.any.type_url == "type.googleapis.com/test.Inner"
    ours = any_pb2.Any(type_url=again.any.type_url, value=again.any.value)
    assert not ours.Is(wrappers_pb2.StringValue.DESCRIPTOR)


def test_of_one_kind_only_the_last_is_set() -> None:
    message = SCHEMA["Outer"](other="x")
    message.one.text = "y"
    assert message.WhichOneof("kind") == "one"
    assert message.other == ""


def test_two_sets_with_one_file_name_live_side_by_side() -> None:
    other = ProtobufSchema("test.proto", {"Inner": {"different": "9 bytes"}}, package="test")
    assert other["Inner"](different=b"x").SerializeToString() == b"J\x01x"
    assert SCHEMA["Inner"](text="x").SerializeToString() == b"\n\x01x"


def test_a_schema_may_use_another() -> None:
    user = ProtobufSchema("user.proto", {"User": {"inner": "1 test.Inner"}}, more=(SCHEMA,))
    assert user["User"](inner={"text": "x"}).SerializeToString() == b"\n\x03\n\x01x"


@pytest.mark.parametrize(
    "field", ["string", "0 string", "1 strings", "1 map<int32, string>", "1  string", "a string"]
)
def test_a_field_of_another_form_is_the_callers_mistake(field: str) -> None:
    with pytest.raises(ApiMisuseError):
        ProtobufSchema("bad.proto", {"M": {"f": field}})


def test_a_message_that_is_not_there_is_the_callers_mistake() -> None:
    with pytest.raises(ApiMisuseError):
        SCHEMA["Nothing"]


def test_garbage_is_not_a_message() -> None:
    with pytest.raises(ProtobufDecodeError):
        SCHEMA["Outer"].FromString(b"\xff")
