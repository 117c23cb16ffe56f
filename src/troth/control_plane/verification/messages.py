# SPDX-License-Identifier: Apache-2.0
"""What the standard APIs say, as JSON. Names and forms are Veraison's.

Source: veraison/docs (api/challenge-response, api/endorsement-provisioning, api/well-known);
draft-ietf-rats-coserv (472a81a) "Discovery".
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = [
    "CoservCapability",
    "CoservConfiguration",
    "Discovery",
    "EvidenceMessage",
    "ProblemMessage",
    "ProvisioningMessage",
    "SessionMessage",
]


class EvidenceMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence as it was submitted."""

    type: Annotated[str, Meta(description="Media type.")]
    value: Annotated[str, Meta(description="Base64 with padding.")]


class SessionMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A challenge-response session."""

    status: Annotated[
        Literal["waiting", "processing", "complete", "failed"],
        Meta(description="Here only `waiting` and `complete` occur."),
    ]
    nonce: Annotated[str, Meta(description="What the Evidence has to carry; base64url, unpadded.")]
    expiry: Annotated[datetime, Meta(tz=True, description="End of the session.")]
    accept: Annotated[tuple[str, ...], Meta(description="Media types of Evidence that are taken.")]
    evidence: EvidenceMessage | UnsetType = UNSET
    result: Annotated[str, Meta(description="EAR as a signed JWT.")] | UnsetType = UNSET


class Discovery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="kebab"):
    """What a client needs to know of a service."""

    ear_verification_key: (
        Annotated[dict[str, str], Meta(description="JWK that results verify with now.")] | UnsetType
    ) = UNSET
    media_types: Annotated[tuple[str, ...], Meta(description="What may be submitted.")]
    version: str
    service_state: Literal["DOWN", "INITIALIZING", "READY", "TERMINATING"]
    api_endpoints: Annotated[dict[str, str], Meta(description="Paths by the interface's name.")]


class ProvisioningMessage(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="kebab"
):
    """What became of a submission."""

    status: Literal["processing", "success", "failed"]
    expiry: Annotated[datetime, Meta(tz=True, description="Nothing is kept: the time itself.")]
    failure_reason: Annotated[str, Meta(description="Why it failed.")] | UnsetType = UNSET


class CoservCapability(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """One profile and what can be had of it."""

    media_type: str
    artifact_support: tuple[Literal["source", "collected", "rims"], ...]


class CoservConfiguration(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The discovery document of CoSERV."""

    version: str
    capabilities: tuple[CoservCapability, ...]
    api_endpoints: dict[str, str]
    result_verification_key: Annotated[
        tuple[dict[str, str], ...], Meta(description="JWKs that signed answers verify with.")
    ]


class ProblemMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A problem document (RFC 9457)."""

    type: str = "about:blank"
    title: str = ""
    status: Annotated[int, Meta(ge=400, le=599)] = 500
    detail: str = ""
    code: Annotated[str, Meta(description="Class of the error, for programs.")] = ""
