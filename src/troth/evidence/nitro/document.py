# SPDX-License-Identifier: Apache-2.0
"""The attestation document of an AWS Nitro Enclave: a COSE_Sign1 around a map of claims.

============= ===================================== =========================================
claim         type                                  rule
============= ===================================== =========================================
module_id     text                                  not empty
digest        text                                  "SHA384"
timestamp     integer                               milliseconds since 1970, above 0
pcrs          map of integer to octets              1 to 32 entries, index 0 to 31; 32, 48 or 64
                                                    octets
certificate   octets                                1 to 1024
cabundle      array of octets                       not empty, root first; each 1 to 1024
public_key    octets or null, may be absent         1 to 1024
user_data     octets or null, may be absent         0 to 512
nonce         octets or null, may be absent         0 to 512
============= ===================================== =========================================

Source: AWS Nitro Enclaves User Guide, "Verifying the root of trust" (specification of the
attestation document and its validation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.evidence.evidence import Evidence
from troth.formats import cbor
from troth.formats.cose import Sign1
from troth.formats.limits import MAX_CERTIFICATES, Limits
from troth.formats.quoting import shown

__all__ = [
    "DIGEST_SIZE",
    "LIMITS",
    "MEDIA_TYPE",
    "NitroDocument",
    "NitroEvidence",
    "decode",
    "decode_document",
]

MEDIA_TYPE: Final = "application/vnd.aws.nitro-enclave.attestation-document"
"""Ours: AWS has registered none."""

LIMITS: Final = Limits(max_bytes=32_768, max_items=256, max_depth=6)
"""Certificates, PCRs and the caller's octets of the largest document come to 16 KiB."""

DIGEST_SIZE: Final = 48
"""Octets of a PCR under "SHA384"."""

_FORMAT: Final = "Nitro document"
_PCR_SIZES: Final = (32, 48, 64)
_PCRS: Final = range(32)
_MAX_CERTIFICATE: Final = 1024
_MAX_PUBLIC_KEY: Final = 1024
_MAX_CALLER_OCTETS: Final = 512
_LATEST_MILLISECONDS: Final = 253_402_300_799_999  # the end of the year 9999
_KNOWN: Final = frozenset(
    {
        "module_id",
        "digest",
        "timestamp",
        "pcrs",
        "certificate",
        "cabundle",
        "public_key",
        "user_data",
        "nonce",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroDocument:
    """The claims of one document. None of them is to be believed before `verify()`.

    Attributes:
        module_id: names this run of this enclave: the instance's id, "-enc", and a number.
        timestamp: when the document was made, in milliseconds since 1970.
        pcrs: index to value. 0 is the enclave image, 1 kernel and boot, 2 the application, 3 the
            role of the parent instance, 4 the instance, 8 the key that signed the image.
        certificate: of the key that signed, DER.
        cabundle: certificates from the root down to the one that signed `certificate`, DER.
        public_key, user_data, nonce: the caller's; None where there is none.
    """

    module_id: str
    timestamp: int
    pcrs: Mapping[int, bytes]
    certificate: bytes = field(repr=False)
    cabundle: tuple[bytes, ...] = field(repr=False)
    public_key: bytes | None = field(default=None, repr=False)
    user_data: bytes | None = field(default=None, repr=False)
    nonce: bytes | None = None

    @property
    def time(self) -> datetime:
        """When the document was made, UTC."""
        return datetime.fromtimestamp(self.timestamp / 1000, UTC)

    @property
    def debug_mode(self) -> bool:
        """The enclave runs in debug mode: its image is not measured, and its console is open."""
        return not any(self.pcrs.get(0, b""))

    def to_json(self) -> dict[str, object]:
        """Return the claims as JSON, Rego and people see them (docs/reference/schemes)."""
        claims: dict[str, object] = {
            "module_id": self.module_id,
            "digest": "SHA384",
            "timestamp": self.timestamp,
            "pcrs": {str(index): value.hex() for index, value in sorted(self.pcrs.items())},
            "debug_mode": self.debug_mode,
        }
        for name in ("public_key", "user_data", "nonce"):
            value = getattr(self, name)
            if value is not None:
                claims[name] = value.hex()
        return claims


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroEvidence(Evidence):
    """A document in its envelope.

    Attributes:
        envelope: COSE_Sign1, ES384.
        document: its payload.
    """

    envelope: Sign1
    document: NitroDocument


def decode(data: bytes, *, media_type: str = "") -> NitroEvidence:
    """Decode one document and check every rule of its form. Certificates are not looked into.

    Args:
        data: the document, tagged or, as AWS writes it, not.
        media_type: that it came under; "" where it came under none.

    Raises:
        DecodeError: not such a document.
        UnsupportedError: another digest than SHA384.
        LimitExceededError: a limit was crossed.
    """
    envelope = Sign1.decode(data, format=_FORMAT, tagging="either", limits=LIMITS)
    if envelope.algorithm != "ES384":
        raise DecodeError(
            f"is signed with {envelope.algorithm or 'nothing known'}, not ES384", format=_FORMAT
        )
    claims = cbor.decode(envelope.payload, format=_FORMAT, limits=LIMITS)
    return NitroEvidence(
        scheme="nitro",
        media_type=media_type or MEDIA_TYPE,
        raw=data,
        envelope=envelope,
        document=decode_document(claims),
    )


def decode_document(claims: object) -> NitroDocument:
    """Check the claims of a decoded payload.

    Raises:
        DecodeError: a claim is missing, or has another type or size; the error names it.
        UnsupportedError: another digest than SHA384, or a claim that the format does not have.
    """
    reader = _Reader(claims)
    digest = reader.text("digest")
    if digest != "SHA384":
        raise UnsupportedError(f"digest is {shown(digest)}; known is SHA384", format=_FORMAT)
    timestamp = reader.value("timestamp")
    if type(timestamp) is not int or not 0 < timestamp <= _LATEST_MILLISECONDS:
        raise _error("timestamp", "is not a time in milliseconds")
    return NitroDocument(
        module_id=reader.text("module_id"),
        timestamp=timestamp,
        pcrs=_pcrs(reader.value("pcrs")),
        certificate=_octets("certificate", reader.value("certificate"), 1, _MAX_CERTIFICATE),
        cabundle=_cabundle(reader.value("cabundle")),
        public_key=reader.optional("public_key", 1, _MAX_PUBLIC_KEY),
        user_data=reader.optional("user_data", 0, _MAX_CALLER_OCTETS),
        nonce=reader.optional("nonce", 0, _MAX_CALLER_OCTETS),
    )


class _Reader:
    """The claims map, whose keys are all known."""

    def __init__(self, claims: object) -> None:
        if not isinstance(claims, dict):
            raise DecodeError("the payload is not a map", format=_FORMAT)
        if others := claims.keys() - _KNOWN:
            raise UnsupportedError(
                f"claim {shown(min(others, key=str))} is none of the format",
                format=_FORMAT,
            )
        self._claims: dict[object, object] = claims

    def value(self, name: str) -> object:
        if name not in self._claims:
            raise _error(name, "is missing")
        return self._claims[name]

    def text(self, name: str) -> str:
        value = self.value(name)
        if not isinstance(value, str) or not value:
            raise _error(name, "is not a text, or empty")
        return value

    def optional(self, name: str, low: int, high: int) -> bytes | None:
        value = self._claims.get(name)
        return None if value is None else _octets(name, value, low, high)


def _pcrs(value: object) -> dict[int, bytes]:
    if not isinstance(value, dict) or not 1 <= len(value) <= len(_PCRS):
        raise _error("pcrs", f"is not a map of 1 to {len(_PCRS)} entries")
    for index, register in value.items():
        if type(index) is not int or index not in _PCRS:
            raise _error("pcrs", f"has the index {shown(index)}; there are 0 to 31")
        if not isinstance(register, bytes) or len(register) not in _PCR_SIZES:
            raise _error(f"pcrs[{index}]", "is not 32, 48 or 64 octets")
    return dict(value)


def _cabundle(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not value:
        raise _error("cabundle", "is not an array of certificates, or empty")
    if len(value) > MAX_CERTIFICATES:
        raise LimitExceededError(format=_FORMAT, limit="max_certificates", value=MAX_CERTIFICATES)
    return tuple(
        _octets(f"cabundle[{index}]", each, 1, _MAX_CERTIFICATE) for index, each in enumerate(value)
    )


def _octets(name: str, value: object, low: int, high: int) -> bytes:
    if not isinstance(value, bytes) or not low <= len(value) <= high:
        raise _error(name, f"is not {low} to {high} octets")
    return value


def _error(name: str, problem: str) -> DecodeError:
    return DecodeError(f"{name} {problem}", format=_FORMAT)
