# SPDX-License-Identifier: Apache-2.0
"""OpenAPI documents, made from the message types that the routes read and write.

Source: OpenAPI Specification 3.1.0 sections 4.8.1 to 4.8.24.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from troth import __version__

__all__ = [
    "OPENAPI_PATH",
    "Answer",
    "Content",
    "Operation",
    "Parameter",
    "openapi_document",
    "openapi_route",
    "problems",
]

OPENAPI_PATH: Final = "/openapi.json"
_REFERENCE: Final = "#/components/schemas/{name}"
_CONVERTOR: Final = re.compile(r"\{(\w+):\w+\}")
_BEARER: Final = "bearer"


@dataclass(frozen=True, slots=True)
class Content:
    """A body in one media type.

    Attributes:
        media_type: its type.
        schema: a type that msgspec knows, a JSON Schema, or None for octets.
    """

    media_type: str
    schema: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of an operation.

    Attributes:
        status: HTTP status.
        words: when it is given; by default the status in words.
        content: its body, in one of these forms; none for no body.
        headers: names, with what they say.
    """

    status: int
    words: str = ""
    content: tuple[Content, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter in the path, the query or a header."""

    name: str
    place: str
    words: str
    schema: Mapping[str, object] = field(default_factory=lambda: {"type": "string"})
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path.

    Attributes:
        method: in capitals.
        path: as the router has it.
        words: what it does, one line.
        tag: the interface that it belongs to.
        parameters: in path, query and headers.
        body: forms of the request's body; none for no body.
        answers: every one that it gives.
        authenticated: whether it takes a bearer token.
    """

    method: str
    path: str
    words: str
    tag: str
    parameters: tuple[Parameter, ...] = ()
    body: tuple[Content, ...] = ()
    answers: tuple[Answer, ...]
    authenticated: bool = False

    @property
    def route(self) -> str:
        """The path as OpenAPI writes it."""
        return _CONVERTOR.sub(r"{\1}", self.path)


def problems(statuses: Iterable[int], content: Content, **words: str) -> tuple[Answer, ...]:
    """Return answers that are problem documents.

    Args:
        statuses: which.
        content: their form.
        words: when, by "on" and the status, such as `on404`.
    """
    return tuple(
        Answer(
            status=status,
            words=words.get(f"on{status}", ""),
            content=(content,),
            headers={"Retry-After": "Seconds to wait."} if status == 429 else {},
        )
        for status in statuses
    )


def openapi_document(title: str, operations: Sequence[Operation]) -> dict[str, object]:
    """Return the document of these operations."""
    types = list(dict.fromkeys(each for each in _schemas(operations) if _is_type(each)))
    found, components = msgspec.json.schema_components(
        types, schema_hook=_schema_of, ref_template=_REFERENCE
    )
    schemas = dict(zip(types, found, strict=True))
    paths: dict[str, dict[str, object]] = {}
    for operation in operations:
        path = paths.setdefault(operation.route, {})
        path[operation.method.lower()] = _operation(operation, schemas)
    document: dict[str, object] = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "license": _LICENCE},
        "paths": paths,
        "components": {"schemas": components},
    }
    if any(operation.authenticated for operation in operations):
        scheme = {_BEARER: {"type": "http", "scheme": "bearer"}}
        document["components"] = {"schemas": components, "securitySchemes": scheme}
    return document


def openapi_route(title: str, operations: Sequence[Operation]) -> Route:
    """Return the route that serves the document, itself included."""
    itself = Operation(
        method="GET",
        path=OPENAPI_PATH,
        words="This document.",
        tag="service",
        answers=(Answer(status=200, content=(Content("application/json", {"type": "object"}),)),),
    )
    body = msgspec.json.encode(openapi_document(title, [*operations, itself]))

    async def document(_: Request) -> Response:
        return Response(body, media_type="application/json")

    return Route(OPENAPI_PATH, document, methods=["GET"])


_LICENCE: Final = {"name": "Apache-2.0", "identifier": "Apache-2.0"}


def _schema_of(kind: type) -> dict[str, object]:
    """Describe what msgspec does not: `object`, where any value may be."""
    if kind is object:
        return {"description": "Any value."}
    raise NotImplementedError


def _schemas(operations: Iterable[Operation]) -> Iterable[Any]:
    for operation in operations:
        for content in operation.body:
            yield content.schema
        for answer in operation.answers:
            for content in answer.content:
                yield content.schema


def _operation(operation: Operation, schemas: Mapping[Any, Any]) -> dict[str, object]:
    described: dict[str, object] = {
        "summary": operation.words,
        "tags": [operation.tag],
        "operationId": _identifier(operation),
        "responses": {str(answer.status): _answer(answer, schemas) for answer in operation.answers},
    }
    if operation.parameters:
        described["parameters"] = [_parameter(each) for each in operation.parameters]
    if operation.body:
        described["requestBody"] = {
            "required": True,
            "content": _content(operation.body, schemas),
        }
    if operation.authenticated:
        described["security"] = [{_BEARER: []}]
    return described


def _identifier(operation: Operation) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", operation.path).strip("_")
    return f"{operation.method.lower()}_{words}"


def _answer(answer: Answer, schemas: Mapping[Any, Any]) -> dict[str, object]:
    described: dict[str, object] = {"description": answer.words or HTTPStatus(answer.status).phrase}
    if answer.content:
        described["content"] = _content(answer.content, schemas)
    if answer.headers:
        described["headers"] = {
            name: {"description": words, "schema": {"type": "string"}}
            for name, words in answer.headers.items()
        }
    return described


def _content(content: Iterable[Content], schemas: Mapping[Any, Any]) -> dict[str, object]:
    return {each.media_type: {"schema": _schema(each.schema, schemas)} for each in content}


def _schema(schema: Any, schemas: Mapping[Any, Any]) -> object:  # noqa: ANN401 - whatever msgspec knows
    if schema is None:
        return {"type": "string", "format": "binary"}
    return schemas[schema] if _is_type(schema) else schema


def _is_type(schema: Any) -> bool:  # noqa: ANN401 - as above
    return schema is not None and not isinstance(schema, Mapping)


def _parameter(parameter: Parameter) -> dict[str, object]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.words,
        "required": parameter.required or parameter.place == "path",
        "schema": dict(parameter.schema),
    }
