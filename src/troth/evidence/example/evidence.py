# SPDX-License-Identifier: Apache-2.0
"""Step 1 of a scheme: bytes to frozen values, each rule of the format checked, nothing believed.

The made-up format is a CBOR array of the text "example" and an encoded COSE_Sign1 whose payload is
the map `{"challenge": octets, "serial": text, "firmware": 32 octets}`.
"""

from __future__ import annotations

from dataclasses import dataclass

from troth.errors import DecodeError
from troth.evidence.evidence import Evidence
from troth.formats import cbor
from troth.formats.cose import Sign1
from troth.formats.limits import Limits

__all__ = ["CHALLENGE_SIZE", "LIMITS", "MEDIA_TYPE", "ExampleClaims", "ExampleEvidence", "decode"]

MEDIA_TYPE = "application/vnd.example.evidence+cbor"

CHALLENGE_SIZE = 32

# State what one piece of Evidence may cost, and where the number comes from.
LIMITS = Limits(max_bytes=4_096, max_items=64, max_depth=4)
"""Ten times what the made-up device sends."""

_FORMAT = "example Evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleClaims:
    """What the device says of itself.

    Attributes:
        challenge: the caller's, 32 octets.
        serial: identifies the device.
        firmware: SHA-256 of what it runs.
    """

    challenge: bytes
    serial: str
    firmware: bytes

    def to_json(self) -> dict[str, object]:
        """Return the claims under the names that policies use; document them."""
        return {
            "challenge": self.challenge.hex(),
            "serial": self.serial,
            "firmware": self.firmware.hex(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleEvidence(Evidence):
    """The envelope and its payload.

    Attributes:
        envelope: COSE_Sign1 under the device's key.
        claims: its payload.
    """

    envelope: Sign1
    claims: ExampleClaims


def decode(data: bytes, *, media_type: str = "") -> ExampleEvidence:
    """Decode one piece of Evidence.

    Raises:
        DecodeError: not Evidence of this scheme; names the part.
        LimitExceededError: a limit was crossed.
    """
    match cbor.decode(data, format=_FORMAT, limits=LIMITS):
        case ["example", bytes() as token]:
            pass
        case _:
            raise DecodeError('is not an array of "example" and octets', format=_FORMAT)
    envelope = Sign1.decode(token, format=_FORMAT, limits=LIMITS)
    payload = cbor.decode(envelope.payload, format="example claims", limits=LIMITS)
    return ExampleEvidence(
        scheme="example",
        media_type=media_type or MEDIA_TYPE,
        raw=data,
        envelope=envelope,
        claims=_claims(payload),
    )


def _claims(payload: object) -> ExampleClaims:
    match payload:
        case {
            "challenge": bytes() as challenge,
            "serial": str() as serial,
            "firmware": bytes() as firmware,
        } if len(challenge) == CHALLENGE_SIZE and serial and len(firmware) == 32:
            return ExampleClaims(challenge=challenge, serial=serial, firmware=firmware)
    raise DecodeError(
        "expected challenge (32 octets), serial (text) and firmware (32 octets)",
        format="example claims",
    )
