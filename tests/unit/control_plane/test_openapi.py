# SPDX-License-Identifier: Apache-2.0
"""OpenAPI documents from the message types; conformance tests compare them with what is served."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from troth.control_plane.openapi import (
    Answer,
    Content,
    Operation,
    Parameter,
    openapi_document,
    problems,
)


class Inner(msgspec.Struct, frozen=True):
    size: Annotated[int, msgspec.Meta(ge=8)]


class Message(msgspec.Struct, frozen=True):
    """What is sent."""

    name: str
    inner: Inner
    anything: object = None


PROBLEM = Content("application/problem+json", {"type": "object"})


def operation(**changes: Any) -> Operation:
    return Operation(
        **{
            "method": "POST",
            "path": "/v1/things/{number:int}",
            "words": "Do it.",
            "tag": "things",
            "parameters": (Parameter(name="number", place="path", words="Which."),),
            "body": (Content("application/json", Message),),
            "answers": (
                Answer(status=200, content=(Content("application/octet-stream"),)),
                *problems((404, 429), PROBLEM, on404="No such thing."),
            ),
            **changes,
        }
    )


def described(document: Any) -> Any:
    return document["paths"]["/v1/things/{number}"]["post"]


def test_messages_become_schemas_with_their_limits() -> None:
    document: Any = openapi_document("Test", [operation()])
    assert document["openapi"] == "3.1.0"
    schemas = document["components"]["schemas"]
    assert schemas["Message"]["required"] == ["name", "inner"]
    assert schemas["Inner"]["properties"]["size"]["minimum"] == 8
    body = described(document)["requestBody"]
    assert body["required"] is True
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Message"}


def test_octets_parameters_and_problems_are_described() -> None:
    found = described(openapi_document("Test", [operation()]))
    octets = found["responses"]["200"]["content"]["application/octet-stream"]["schema"]
    assert octets == {"type": "string", "format": "binary"}
    assert found["responses"]["404"]["description"] == "No such thing."
    assert "Retry-After" in found["responses"]["429"]["headers"]
    (parameter,) = found["parameters"]
    assert (parameter["in"], parameter["required"]) == ("path", True)


def test_authentication_is_named_only_where_there_is_some() -> None:
    document: Any = openapi_document("Test", [operation()])
    assert "security" not in described(document)
    assert "securitySchemes" not in document["components"]
    document = openapi_document("Test", [operation(authenticated=True)])
    assert described(document)["security"] == [{"bearer": []}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_two_methods_of_one_path_stand_together() -> None:
    document: Any = openapi_document("Test", [operation(), operation(method="GET", body=())])
    assert set(document["paths"]["/v1/things/{number}"]) == {"post", "get"}
    assert "requestBody" not in document["paths"]["/v1/things/{number}"]["get"]
