# SPDX-License-Identifier: Apache-2.0
"""The standard APIs as OpenAPI operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from troth.control_plane.openapi import Answer, Content, Operation, Parameter, problems
from troth.control_plane.server.endorsement_routes import CorimMessage
from troth.control_plane.server.problem import PROBLEM_JSON
from troth.control_plane.verification.challenge_response_routes import PREFIX, SESSION_JSON
from troth.control_plane.verification.coserv_routes import (
    CONFIGURATION,
    DISCOVERY_CBOR,
    QUERY_PATHS,
)
from troth.control_plane.verification.coserv_routes import DISCOVERY_JSON as COSERV_JSON
from troth.control_plane.verification.discovery import DISCOVERY_JSON, RESULT_KEYS, WELL_KNOWN
from troth.control_plane.verification.messages import (
    CoservConfiguration,
    Discovery,
    ProblemMessage,
    ProvisioningMessage,
    SessionMessage,
)
from troth.control_plane.verification.problems import CONCISE_PROBLEM
from troth.control_plane.verification.provisioning import PROVISIONING_JSON, SUBMIT
from troth.control_plane.verification.provisioning import WELL_KNOWN as PROVISIONING_WELL_KNOWN
from troth.endorsement.repository import Provisioned
from troth.formats.corim.corim import MEDIA_TYPE as RIM_CBOR
from troth.formats.corim.signed import SIGNED_MEDIA_TYPE as RIM_COSE
from troth.formats.coserv import MEDIA_TYPE as COSERV_CBOR
from troth.formats.coserv import SIGNED_MEDIA_TYPE as COSERV_COSE

__all__ = [
    "api_operations",
    "endorsement_operations",
    "health_operations",
    "provisioning_operations",
    "result_key_operations",
    "rotation_operation",
    "verifier_admin_operations",
    "verifier_operations",
]

PROBLEM: Final = Content(PROBLEM_JSON, ProblemMessage)
_CONCISE: Final = Content(CONCISE_PROBLEM)
_SESSION: Final = Content(SESSION_JSON, SessionMessage)
_TEXT: Final = Content("text/plain", {"type": "string"})
_JWK_SET: Final = Content(
    "application/json",
    {
        "type": "object",
        "required": ["keys"],
        "properties": {"keys": {"type": "array", "items": {"type": "object"}}},
    },
)
_BASE64URL: Final = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "minLength": 1}
_SESSION_ID: Final = Parameter(
    name="session", place="path", words="From the Location of the session.", schema=_BASE64URL
)


def verifier_operations(apis: Sequence[Operation], *, metrics: bool) -> list[Operation]:
    """Return what a Verifier alone serves to everybody; `apis` are the standard ones."""
    return [*health_operations(metrics=metrics), *apis, *result_key_operations()]


def verifier_admin_operations() -> list[Operation]:
    """Return what a Verifier alone serves to its operators."""
    return [
        *health_operations(metrics=True),
        *provisioning_operations(operators=True),
        *endorsement_operations(
            withdrawn={
                "type": "object",
                "required": ["id", "reference_values", "trust_anchors"],
            }
        ),
        *result_key_operations(),
        rotation_operation(),
    ]


def api_operations(
    media_types: Sequence[str], *, verification: bool, coserv: bool
) -> list[Operation]:
    """Return the standard APIs as far as they are served."""
    return [
        *(_challenge_response(media_types) if verification else ()),
        *provisioning_operations(),
        *(_coserv() if coserv else ()),
    ]


def health_operations(*, metrics: bool) -> list[Operation]:
    """Return health and metrics."""
    found = [
        Operation(
            method="GET",
            path="/livez",
            words="The process lives.",
            tag="service",
            answers=(Answer(status=200, content=(_TEXT,)),),
        ),
        Operation(
            method="GET",
            path="/readyz",
            words="What decisions need can be had.",
            tag="service",
            answers=(Answer(status=200, content=(_TEXT,)), *problems((503,), PROBLEM)),
        ),
    ]
    if metrics:
        found.append(
            Operation(
                method="GET",
                path="/metrics",
                words="Prometheus exposition.",
                tag="service",
                answers=(Answer(status=200, content=(_TEXT,)), *problems((503,), PROBLEM)),
            )
        )
    return found


def result_key_operations() -> list[Operation]:
    """Return the publication of result keys."""
    return [
        Operation(
            method="GET",
            path=RESULT_KEYS,
            words="Keys that Attestation Results verify with, the next one and the last included.",
            tag="results",
            answers=(Answer(status=200, content=(_JWK_SET,)),),
        )
    ]


def rotation_operation() -> Operation:
    """Return the operators' rotation of the result key."""
    return Operation(
        method="POST",
        path="/v1/result-keys",
        words="Make the next result key.",
        tag="results",
        answers=(Answer(status=201, content=(_JWK_SET,)), *problems((409, 503), PROBLEM)),
    )


def endorsement_operations(*, withdrawn: object) -> list[Operation]:
    """Return the operators' routes about Endorsements; `withdrawn` is the form of that answer."""
    identifier = Parameter(
        name="id",
        place="query",
        words="CoRIM, tag, key or value.",
        schema={"type": "string", "minLength": 1},
        required=True,
    )
    why = Parameter(name="why", place="query", words="For the log.")
    removed = Answer(status=200, content=(Content("application/json", withdrawn),))
    listing = {"type": "array", "items": {"type": "object"}}
    found = [
        Operation(
            method="POST",
            path="/v1/corims",
            words="Provision a CoRIM.",
            tag="endorsements",
            parameters=(
                Parameter(name="source", place="query", words="Where it is from."),
                Parameter(
                    name="replaces",
                    place="query",
                    words="CoRIM that it replaces; both are in force until `overlap_until`.",
                ),
                Parameter(
                    name="overlap_until",
                    place="query",
                    words="End of the replaced one, with its zone.",
                    schema={"type": "string", "format": "date-time"},
                ),
            ),
            body=(Content("application/octet-stream"),),
            answers=(
                Answer(status=201, content=(Content("application/json", Provisioned),)),
                *problems((400, 403, 409, 413, 415, 503), PROBLEM),
            ),
        ),
        Operation(
            method="GET",
            path="/v1/corims",
            words="What is provisioned.",
            tag="endorsements",
            answers=(
                Answer(status=200, content=(Content("application/json", list[CorimMessage]),)),
                *problems((503,), PROBLEM),
            ),
        ),
        Operation(
            method="GET",
            path="/v1/reference-values",
            words="Every Reference Value and trust anchor.",
            tag="endorsements",
            answers=(
                Answer(status=200, content=(Content("application/json", listing),)),
                *problems((503,), PROBLEM),
            ),
        ),
    ]
    found += [
        Operation(
            method="DELETE",
            path=path,
            words="Withdraw what has this identifier.",
            tag="endorsements",
            parameters=(identifier, why),
            answers=(removed, *problems((400, 409, 503), PROBLEM)),
        )
        for path in ("/v1/corims", "/v1/reference-values")
    ]
    return found


def _challenge_response(media_types: Sequence[str]) -> list[Operation]:
    path = f"{PREFIX}/session/{{session}}"
    limited = problems((429, 503), PROBLEM)
    return [
        Operation(
            method="POST",
            path=f"{PREFIX}/newSession",
            words="Open a session.",
            tag="verification",
            parameters=(
                Parameter(
                    name="nonce",
                    place="query",
                    words="The caller's own, 8 to 64 octets in base64url.",
                    schema={"type": "string", "pattern": "^[A-Za-z0-9_-]{11,86}={0,2}$"},
                ),
                Parameter(
                    name="nonceSize",
                    place="query",
                    words="Octets of a random one.",
                    schema={"type": "integer", "minimum": 8, "maximum": 64},
                ),
            ),
            answers=(
                Answer(
                    status=201,
                    content=(_SESSION,),
                    headers={"Location": "The session, relative to this route."},
                ),
                *problems((400, 406, 413), PROBLEM),
                *limited,
            ),
        ),
        Operation(
            method="POST",
            path=path,
            words="Submit Evidence; bad Evidence gets a result too.",
            tag="verification",
            parameters=(_SESSION_ID,),
            body=tuple(
                Content(each)
                for each in (*media_types, "application/cmw+cbor", "application/cmw+json")
            ),
            answers=(
                Answer(status=200, content=(_SESSION,)),
                *problems(
                    (400, 404, 406, 409, 413, 415),
                    PROBLEM,
                    on404="No such session, or it is over.",
                    on409="The session has its result.",
                ),
                *limited,
            ),
        ),
        Operation(
            method="GET",
            path=path,
            words="The session as it is.",
            tag="verification",
            parameters=(_SESSION_ID,),
            answers=(
                Answer(status=200, content=(_SESSION,)),
                *problems((400, 404, 406), PROBLEM),
                *limited,
            ),
        ),
        Operation(
            method="DELETE",
            path=path,
            words="Forget the session; it cannot be used any more.",
            tag="verification",
            parameters=(_SESSION_ID,),
            answers=(Answer(status=204), *problems((400, 404), PROBLEM), *limited),
        ),
        Operation(
            method="GET",
            path=WELL_KNOWN,
            words="Keys, media types and paths.",
            tag="verification",
            answers=(
                Answer(status=200, content=(Content(DISCOVERY_JSON, Discovery),)),
                *problems((406,), PROBLEM),
            ),
        ),
    ]


def provisioning_operations(*, operators: bool = False) -> list[Operation]:
    """Return Veraison's provisioning API, as everybody or as operators see it."""
    statuses = (400, 406, 413, 415, 503)
    return [
        Operation(
            method="POST",
            path=SUBMIT,
            words="Provision a CoRIM; one that is not taken is answered with status `failed`.",
            tag="provisioning",
            body=(Content(RIM_CBOR), Content(RIM_COSE)),
            answers=(
                Answer(status=200, content=(Content(PROVISIONING_JSON, ProvisioningMessage),)),
                *problems(statuses if operators else (*statuses, 401, 429), PROBLEM),
            ),
            authenticated=not operators,
        ),
        Operation(
            method="GET",
            path=PROVISIONING_WELL_KNOWN,
            words="Media types and paths.",
            tag="provisioning",
            answers=(
                Answer(status=200, content=(Content(DISCOVERY_JSON, Discovery),)),
                *problems((406,), PROBLEM),
            ),
        ),
    ]


def _coserv() -> list[Operation]:
    queries = [
        Operation(
            method="GET",
            path=path,
            words="Endorsements and Reference Values by query.",
            tag="distribution",
            parameters=(
                Parameter(
                    name="query",
                    place="path",
                    words="CoSERV query in CBOR, base64url.",
                    schema=_BASE64URL,
                ),
            ),
            answers=(
                Answer(
                    status=200,
                    content=(Content(COSERV_COSE), Content(COSERV_CBOR)),
                    headers={"Cache-Control": "At most until the answer's expiry."},
                ),
                Answer(status=304, words="As the ETag says."),
                *problems((400, 403, 406, 413, 429, 503), _CONCISE),
            ),
        )
        for path in QUERY_PATHS
    ]
    return [
        *queries,
        Operation(
            method="GET",
            path=CONFIGURATION,
            words="Profiles, paths and keys.",
            tag="distribution",
            answers=(
                Answer(
                    status=200,
                    content=(Content(COSERV_JSON, CoservConfiguration), Content(DISCOVERY_CBOR)),
                ),
                *problems((406,), _CONCISE),
            ),
        ),
    ]
