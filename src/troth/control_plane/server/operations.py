# SPDX-License-Identifier: Apache-2.0
"""The server's routes as OpenAPI operations; a test compares them with what is served."""

from __future__ import annotations

from typing import Any, Final

from troth.control_plane.openapi import Answer, Content, Operation, Parameter, problems
from troth.control_plane.server.bundle_routes import FederationMessage
from troth.control_plane.server.context import ServerContext
from troth.control_plane.server.feed_route import AckRequest
from troth.control_plane.server.logical_tee_routes import ltee_admin_operations, ltee_operations
from troth.control_plane.server.operators import WithdrawalOutcome
from troth.control_plane.server.placement_routes import (
    placement_admin_operations,
    placement_operations,
)
from troth.control_plane.verification.operations import (
    PROBLEM,
    endorsement_operations,
    health_operations,
    provisioning_operations,
    result_key_operations,
    rotation_operation,
)
from troth.mesh.device_message import (
    DeviceMessage,
    RevocationMessage,
    TokenReply,
    TokenRequest,
)
from troth.mesh.entry_message import EntryMessage
from troth.mesh.event import Snapshot
from troth.mesh.join_messages import (
    ActivationMessage,
    ActivationReply,
    AppraisalReply,
    AppraisalRequest,
    JoinReply,
    JoinRequest,
    SessionReply,
    SessionRequest,
)
from troth.mesh.policy_messages import DifferencePage, PolicyOverview, RecordPage
from troth.mesh.registry import JoinRefusal, LogHead
from troth.mesh.workload_messages import (
    EntriesReply,
    JwtSvidReply,
    JwtSvidRequest,
    SvidBatchReply,
    SvidBatchRequest,
    WitReply,
    WitRequest,
)

__all__ = ["admin_operations", "server_operations"]

_OBJECT: Final = {"type": "object"}
_OBJECTS: Final = {"type": "array", "items": _OBJECT}
_NUMBER: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string"}
_NDJSON: Final = Content("application/x-ndjson", {"type": "string"})
_MEMBERS_ONLY: Final = "Not a member."


def server_operations(context: ServerContext) -> list[Operation]:
    """Return what the HTTPS listener serves."""
    return [
        *health_operations(metrics=context.config.public_metrics),
        *result_key_operations(),
        _bundle(),
        *_join(),
        *_members(),
        *_agents(),
        *ltee_operations(),
        *placement_operations(),
        *context.standard.apis.operations(),
    ]


def admin_operations() -> list[Operation]:
    """Return what the operators' socket serves."""
    return [
        *health_operations(metrics=True),
        *result_key_operations(),
        rotation_operation(),
        _bundle(),
        *provisioning_operations(operators=True),
        *endorsement_operations(withdrawn=WithdrawalOutcome),
        *_nodes(),
        *_entries(),
        *ltee_admin_operations(),
        *placement_admin_operations(),
        *_devices(),
        *_records(),
        *_policies(),
        *_trust(),
        _feed(_after()),
    ]


def _json(schema: Any, *, status: int = 200) -> Answer:  # noqa: ANN401 - whatever msgspec knows
    return Answer(status=status, content=(Content("application/json", schema),))


def _body(schema: Any) -> tuple[Content, ...]:  # noqa: ANN401 - as above
    return (Content("application/json", schema),)


def _path(name: str, words: str, **schema: object) -> Parameter:
    return Parameter(name=name, place="path", words=words, schema=schema or {"type": "string"})


def _query(name: str, words: str, **schema: object) -> Parameter:
    return Parameter(name=name, place="query", words=words, schema=schema or {"type": "string"})


def _after() -> Parameter:
    return _query("after", "Number of the last one that is known.", **_NUMBER)


def _limit() -> Parameter:
    return _query("limit", "How many at most.", **_NUMBER)


def _bundle() -> Operation:
    return Operation(
        method="GET",
        path="/v1/bundle",
        words="The trust bundle.",
        tag="trust",
        parameters=(_query("format", "`pem` for PEM."),),
        answers=(
            Answer(
                status=200,
                content=(
                    Content("application/json", _OBJECT),
                    Content("application/x-pem-file", _TEXT),
                ),
            ),
        ),
    )


def _join() -> list[Operation]:
    return [
        Operation(
            method="POST",
            path="/v1/join/sessions",
            words="Ask for a nonce.",
            tag="join",
            body=_body(SessionRequest),
            answers=(
                Answer(
                    status=201,
                    content=_body(SessionReply),
                    headers={"Location": "The session."},
                ),
                *problems((400, 413, 429, 503), PROBLEM),
            ),
        ),
        Operation(
            method="POST",
            path="/v1/join/sessions/{session}",
            words="Join or renew: Evidence for the nonce and the key of the certificate request.",
            tag="join",
            parameters=(_path("session", "From the session."),),
            body=_body(JoinRequest),
            answers=(
                _json(JoinReply),
                *problems((400, 403, 409, 413, 415, 429, 503), PROBLEM),
            ),
        ),
        Operation(
            method="POST",
            path="/v1/join/sessions/{session}/activation",
            words="Have the TPM of a session challenged about its attestation key.",
            tag="join",
            parameters=(_path("session", "From the session."),),
            body=_body(ActivationMessage),
            answers=(
                _json(ActivationReply),
                *problems((400, 403, 409, 413, 415, 429, 503), PROBLEM),
            ),
        ),
    ]


def _feed(*parameters: Parameter) -> Operation:
    return Operation(
        method="GET",
        path="/v1/feed",
        words="Events as lines of JSON, for ever.",
        tag="members",
        parameters=parameters,
        answers=(
            Answer(status=200, content=(_NDJSON,)),
            *problems((400, 403, 503), PROBLEM, on403=_MEMBERS_ONLY),
        ),
    )


def _members() -> list[Operation]:
    return [
        _feed(_after()),
        Operation(
            method="POST",
            path="/v1/feed/ack",
            words="Everything up to this event is in force here.",
            tag="members",
            body=_body(AckRequest),
            answers=(Answer(status=204), *problems((400, 403, 409, 413, 503), PROBLEM)),
        ),
        Operation(
            method="GET",
            path="/v1/nodes",
            words="All members.",
            tag="members",
            answers=(_json(Snapshot), *problems((403, 503), PROBLEM, on403=_MEMBERS_ONLY)),
        ),
        Operation(
            method="POST",
            path="/v1/appraisals",
            words="Appraise Evidence that a peer showed; the result names no key.",
            tag="members",
            body=_body(AppraisalRequest),
            answers=(
                _json(AppraisalReply),
                *problems((400, 403, 413, 415, 429, 503), PROBLEM),
            ),
        ),
    ]


def _agents() -> list[Operation]:
    refused = problems((400, 403, 409, 413, 503), PROBLEM, on403=_MEMBERS_ONLY)
    return [
        Operation(
            method="GET",
            path="/v1/agent/entries",
            words="The workloads of the asking node.",
            tag="workloads",
            parameters=(
                _query("revision", "That is known."),
                _query("wait", "Seconds to wait for another."),
            ),
            answers=(_json(EntriesReply), Answer(status=204), Answer(status=304), *refused),
        ),
        Operation(
            method="POST",
            path="/v1/agent/x509-svids",
            words="X.509-SVIDs for workloads of the asking node.",
            tag="workloads",
            body=_body(SvidBatchRequest),
            answers=(_json(SvidBatchReply), *refused),
        ),
        Operation(
            method="POST",
            path="/v1/agent/jwt-svids",
            words="A JWT-SVID for a workload of the asking node.",
            tag="workloads",
            body=_body(JwtSvidRequest),
            answers=(_json(JwtSvidReply), *refused),
        ),
        Operation(
            method="POST",
            path="/v1/agent/wits",
            words="A Workload Identity Token and the result for its key, for a workload or the node.",
            tag="workloads",
            body=_body(WitRequest),
            answers=(_json(WitReply), *refused),
        ),
        Operation(
            method="GET",
            path="/v1/agent/bundles",
            words="The bundles of the trust domains that matter to the asking node.",
            tag="workloads",
            answers=(_json(_OBJECT), *refused),
        ),
    ]


def _nodes() -> list[Operation]:
    node = _path("node", "Its id.")
    return [
        Operation(
            method="GET",
            path="/v1/nodes",
            words="All nodes.",
            tag="nodes",
            answers=(_json(_OBJECTS), *problems((503,), PROBLEM)),
        ),
        Operation(
            method="GET",
            path="/v1/nodes/{node}",
            words="One node.",
            tag="nodes",
            parameters=(node,),
            answers=(_json(_OBJECT), *problems((404, 409, 503), PROBLEM)),
        ),
        Operation(
            method="POST",
            path="/v1/nodes/{node}/{verb}",
            words="Expel, reattest or retire a node.",
            tag="nodes",
            parameters=(
                node,
                _path("verb", "What to do.", type="string", enum=["expel", "reattest", "retire"]),
            ),
            answers=(_json(_OBJECT), *problems((404, 409, 503), PROBLEM)),
        ),
        Operation(
            method="GET",
            path="/v1/delivery/{sequence:int}",
            words="Who has applied an event.",
            tag="nodes",
            parameters=(
                _path("sequence", "The event's number.", **_NUMBER),
                _query("wait", "Seconds to wait for all.", type="integer", minimum=0, maximum=60),
            ),
            answers=(_json(_OBJECT), *problems((400, 404, 503), PROBLEM)),
        ),
    ]


def _entries() -> list[Operation]:
    entry = _path("entry", "Its id.")
    refused = problems((400, 403, 409, 413, 503), PROBLEM)
    return [
        Operation(
            method="GET",
            path="/v1/entries",
            words="Registration entries of nodes and workloads.",
            tag="entries",
            parameters=(
                _query("spiffe_id", "Those of this SPIFFE ID."),
                _query("parent_id", "Those of this parent."),
                _query("selector", "Those with this selector."),
            ),
            answers=(_json(list[EntryMessage]), *problems((503,), PROBLEM)),
        ),
        Operation(
            method="POST",
            path="/v1/entries",
            words="Add an entry.",
            tag="entries",
            body=_body(EntryMessage),
            answers=(_json(EntryMessage, status=201), *refused),
        ),
        Operation(
            method="GET",
            path="/v1/entries/{entry}",
            words="One entry.",
            tag="entries",
            parameters=(entry,),
            answers=(_json(EntryMessage), *problems((404, 503), PROBLEM)),
        ),
        Operation(
            method="PUT",
            path="/v1/entries/{entry}",
            words="Replace an entry.",
            tag="entries",
            parameters=(entry,),
            body=_body(EntryMessage),
            answers=(_json(EntryMessage), *refused),
        ),
        Operation(
            method="DELETE",
            path="/v1/entries/{entry}",
            words="Delete an entry; nodes that joined by it are quarantined.",
            tag="entries",
            parameters=(entry,),
            answers=(_json(_OBJECT), *problems((409, 503), PROBLEM)),
        ),
    ]


def _devices() -> list[Operation]:
    device = _path("device", "Its id.")
    refused = problems((400, 409, 413, 503), PROBLEM)
    return [
        Operation(
            method="GET",
            path="/v1/devices",
            words="The inventory of devices.",
            tag="devices",
            answers=(_json(list[DeviceMessage]), *problems((503,), PROBLEM)),
        ),
        Operation(
            method="POST",
            path="/v1/devices",
            words="Enter a device; it is not approved by that.",
            tag="devices",
            body=_body(DeviceMessage),
            answers=(_json(DeviceMessage, status=201), *refused),
        ),
        Operation(
            method="GET",
            path="/v1/devices/{device}",
            words="One device.",
            tag="devices",
            parameters=(device,),
            answers=(_json(DeviceMessage), *problems((409, 503), PROBLEM)),
        ),
        Operation(
            method="POST",
            path="/v1/devices/{device}/approve",
            words="Approve a device: the owner's half of the double opt-in.",
            tag="devices",
            parameters=(device,),
            answers=(_json(DeviceMessage), *problems((409, 503), PROBLEM)),
        ),
        Operation(
            method="POST",
            path="/v1/devices/{device}/revoke",
            words="Revoke a device for good; its nodes are quarantined.",
            tag="devices",
            parameters=(device,),
            answers=(_json(RevocationMessage), *problems((409, 503), PROBLEM)),
        ),
        Operation(
            method="POST",
            path="/v1/devices/{device}/token",
            words="Make a join token for a device; it is shown this once.",
            tag="devices",
            parameters=(device,),
            body=_body(TokenRequest),
            answers=(_json(TokenReply, status=201), *refused),
        ),
    ]


def _records() -> list[Operation]:
    return [
        Operation(
            method="GET",
            path="/v1/refusals",
            words="The newest refused joins.",
            tag="records",
            parameters=(_limit(),),
            answers=(_json(list[JoinRefusal]), *problems((400, 503), PROBLEM)),
        ),
        Operation(
            method="GET",
            path="/v1/refusals/{refusal}",
            words="Why a join was refused.",
            tag="records",
            parameters=(_path("refusal", "Its id."),),
            answers=(_json(JoinRefusal), *problems((404, 503), PROBLEM)),
        ),
        Operation(
            method="GET",
            path="/v1/log",
            words="Rows of the state log.",
            tag="records",
            parameters=(_after(), _limit()),
            answers=(_json(_OBJECTS), *problems((400, 503), PROBLEM)),
        ),
        Operation(
            method="GET",
            path="/v1/log/verify",
            words="Verify the state log.",
            tag="records",
            answers=(_json(LogHead), *problems((403, 503), PROBLEM)),
        ),
    ]


def _policies() -> list[Operation]:
    span = (
        _query("since", "Seconds to look back.", **_NUMBER),
        _query("after", "Id of the last record that is known."),
        _limit(),
    )
    return [
        Operation(
            method="GET",
            path="/v1/policy",
            words="The Appraisal Policies in force and under audit.",
            tag="policy",
            answers=(_json(PolicyOverview),),
        ),
        Operation(
            method="GET",
            path="/v1/policy/records",
            words="Appraisals on record.",
            tag="policy",
            parameters=span,
            answers=(_json(RecordPage), *problems((400, 503), PROBLEM)),
        ),
        Operation(
            method="GET",
            path="/v1/policy/differences",
            words="How the audited policy concluded.",
            tag="policy",
            parameters=span,
            answers=(_json(DifferencePage), *problems((400, 409, 503), PROBLEM)),
        ),
        Operation(
            method="POST",
            path="/v1/policy/replay",
            words="How another policy would conclude.",
            tag="policy",
            parameters=(*span, _query("name", "What to call it.")),
            body=(Content("text/plain", _TEXT),),
            answers=(_json(DifferencePage), *problems((400, 413, 503), PROBLEM)),
        ),
    ]


def _trust() -> list[Operation]:
    domain = _path("domain", "The other trust domain.")
    refused = problems((400, 403, 404, 409, 413, 415, 503), PROBLEM)
    bundles = [
        Operation(
            method=method,
            path=f"/v1/bundles{path}",
            words=words,
            tag="trust",
            parameters=(domain,) if path else (),
            body=_body(FederationMessage) if method == "PUT" else (),
            answers=(*answers, *refused),
        )
        for method, path, words, answers in (
            ("GET", "", "Bundles of other trust domains.", (_json(_OBJECTS),)),
            ("GET", "/{domain}", "One of them.", (_json(_OBJECT),)),
            ("PUT", "/{domain}", "Federate with a trust domain.", (_json(_OBJECT),)),
            (
                "DELETE",
                "/{domain}",
                "Federate no longer.",
                (Answer(status=204), _json(_OBJECT)),
            ),
            ("POST", "/{domain}/refresh", "Fetch its bundle now.", (_json(_OBJECT),)),
        )
    ]
    return [
        *bundles,
        Operation(
            method="GET",
            path="/v1/authorities",
            words="The authorities of the trust domain.",
            tag="trust",
            answers=(_json({}), *problems((503,), PROBLEM)),
        ),
        Operation(
            method="POST",
            path="/v1/authorities/{kind}/{verb}",
            words="Prepare the next authority, or let it sign.",
            tag="trust",
            parameters=(
                _path("kind", "Which kind.", type="string", enum=["x509", "jwt"]),
                _path("verb", "What to do.", type="string", enum=["prepare", "activate"]),
            ),
            answers=(_json({}), *refused),
        ),
    ]
