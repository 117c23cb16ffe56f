# SPDX-License-Identifier: Apache-2.0
"""TPM 2.0 Evidence, decoded: a quote, what it was made over, and the logs that explain it.

Troth's own form is a CBOR map (docs/reference/schemes/tpm2.md). Two forms of others are read as
well: `troth.evidence.tpm2.other_forms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.evidence.certificates import load_certificate
from troth.evidence.evidence import Evidence
from troth.evidence.tpm2.other_forms import (
    ENACTTRUST_MEDIA_TYPE,
    PARSEC_MEDIA_TYPE,
    KeyAttestation,
    decode_enacttrust,
    decode_parsec,
    is_enacttrust,
    is_parsec,
)
from troth.formats import cbor
from troth.formats.eat import normalise_media_type
from troth.formats.limits import MAX_CERTIFICATES, Limits
from troth.formats.quoting import shown
from troth.formats.tpm.attest import Attest, Quoted, decode_attest
from troth.formats.tpm.event_log import EventLog, decode_event_log
from troth.formats.tpm.ima_log import ImaLog, decode_ima_log
from troth.formats.tpm.public import TpmPublic, decode_public
from troth.formats.tpm.signature import TpmSignature, decode_signature

__all__ = ["LIMITS", "MEDIA_TYPE", "STARTS", "Tpm2Evidence", "decode", "encode"]

MEDIA_TYPE: Final = "application/vnd.troth.tpm2-evidence+cbor"

LIMITS: Final = Limits(max_bytes=3_276_800, max_items=64, max_depth=2)
"""The largest boot log and the largest IMA log, and 128 KB for all else."""

_FORM: Final = "troth-tpm2/1"
_FORM_KEY, _QUOTE, _SIGNATURE, _PCRS, _KEY, _CERTIFICATES, _EVENT_LOG, _IMA_LOG = range(8)
_NAMES: Final = {
    _FORM_KEY: "form",
    _QUOTE: "quote",
    _SIGNATURE: "signature",
    _PCRS: "pcr-values",
    _KEY: "attestation-key",
    _CERTIFICATES: "certificates",
    _EVENT_LOG: "event-log",
    _IMA_LOG: "ima-log",
}
_FORMAT: Final = "TPM 2.0 Evidence"

STARTS: Final = tuple(
    bytes([0xA0 | members, _FORM_KEY, 0x60 | len(_FORM)]) + _FORM.encode()
    for members in range(4, len(_NAMES) + 1)
)
"""How Troth's own form begins: a map whose first member says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpm2Evidence(Evidence):
    """One quote and what belongs to it. None of it is to be believed before `verify()`.

    Attributes:
        quote: TPMS_ATTEST of type quote.
        signature: over the quote.
        pcr_values: the values of the selected registers one after the other, in the order that
            they were hashed in; None in forms that carry only the digest.
        attestation_key: public area of the attestation key (AK), or None.
        certificates: of the AK, leaf first, then intermediates.
        event_log: of firmware and boot loader, or None.
        ima_log: of files that the kernel measured, or None.
        key_attestation: of another key that the AK certifies (Parsec), or None.
        key_id: what the form itself names the attestation key by, else b"".
    """

    quote: Attest
    signature: TpmSignature
    pcr_values: bytes | None = field(default=None, repr=False)
    attestation_key: TpmPublic | None = None
    certificates: Sequence[x509.Certificate] = ()
    event_log: EventLog | None = None
    ima_log: ImaLog | None = None
    key_attestation: KeyAttestation | None = None
    key_id: bytes = b""

    @property
    def quoted(self) -> Quoted:
        """What the quote is about; `decode` has refused quotes about anything else."""
        attested = self.quote.attested
        if not isinstance(attested, Quoted):
            raise DecodeError("is not a quote", format=_FORMAT)
        return attested


def decode(data: bytes, *, media_type: str = "") -> Tpm2Evidence:
    """Decode one piece of Evidence and check the form of all that is in it.

    Args:
        data: the Evidence, whole.
        media_type: that it came under; "" where it came under none.

    Raises:
        DecodeError: not TPM 2.0 Evidence of a known form, or the media type is of another form.
        UnsupportedError: well-formed, but something in it that Troth does not take.
        LimitExceededError: a limit was crossed.
    """
    stated = normalise_media_type(media_type) if media_type else ""
    if not stated and data.startswith(STARTS):
        return _own(data)
    if stated == PARSEC_MEDIA_TYPE or (not stated and is_parsec(data)):
        return _parsec(data)
    if stated == ENACTTRUST_MEDIA_TYPE or (not stated and is_enacttrust(data)):
        return _enacttrust(data)
    if stated and stated != MEDIA_TYPE:
        raise DecodeError(f"came as {shown(media_type)}, not as {MEDIA_TYPE}", format=_FORMAT)
    return _own(data)


def encode(
    *,
    quote: bytes,
    signature: bytes,
    pcr_values: bytes,
    attestation_key: bytes = b"",
    certificates: Sequence[bytes] = (),
    event_log: bytes | None = None,
    ima_log: bytes | None = None,
) -> bytes:
    """Return Evidence in Troth's own form. Nothing is checked: `decode` does that.

    Args:
        quote: TPMS_ATTEST.
        signature: TPMT_SIGNATURE.
        pcr_values: values of the selected registers, in the order of the selection.
        attestation_key: TPMT_PUBLIC, or b"" to leave it out.
        certificates: of the AK in DER, leaf first.
        event_log: binary_bios_measurements, or None.
        ima_log: ascii or binary runtime measurements, or None.
    """
    members: dict[int | str | bytes, object] = {
        _FORM_KEY: _FORM,
        _QUOTE: quote,
        _SIGNATURE: signature,
        _PCRS: pcr_values,
    }
    if attestation_key:
        members[_KEY] = attestation_key
    if certificates:
        members[_CERTIFICATES] = list(certificates)
    if event_log is not None:
        members[_EVENT_LOG] = event_log
    if ima_log is not None:
        members[_IMA_LOG] = ima_log
    return cbor.encode(members)


def _own(data: bytes) -> Tpm2Evidence:
    members = cbor.decode(data, format=_FORMAT, limits=LIMITS)
    if not isinstance(members, dict) or members.get(_FORM_KEY) != _FORM:
        raise DecodeError(f'is not a map whose member 0 (form) is "{_FORM}"', format=_FORMAT)
    unknown = members.keys() - _NAMES.keys()
    if unknown:  # nothing would sign them
        raise UnsupportedError(
            f"members that Troth does not know: {shown(sorted(map(str, unknown)))}", format=_FORMAT
        )
    key = _octets(members, _KEY, required=False)
    log = _octets(members, _EVENT_LOG, required=False)
    ima = _octets(members, _IMA_LOG, required=False)
    return Tpm2Evidence(
        scheme="tpm2",
        media_type=MEDIA_TYPE,
        raw=data,
        quote=_quote(_octets(members, _QUOTE) or b""),
        signature=decode_signature(_octets(members, _SIGNATURE) or b""),
        pcr_values=_octets(members, _PCRS),
        attestation_key=None if key is None else decode_public(key),
        certificates=_certificates(members.get(_CERTIFICATES, [])),
        event_log=None if log is None else decode_event_log(log),
        ima_log=None if ima is None else decode_ima_log(ima),
    )


def _parsec(data: bytes) -> Tpm2Evidence:
    parts = decode_parsec(data)
    return Tpm2Evidence(
        scheme="tpm2",
        media_type=PARSEC_MEDIA_TYPE,
        raw=data,
        quote=_quote(parts.quote),
        signature=decode_signature(parts.signature),
        key_attestation=parts.key_attestation,
        key_id=parts.key_id,
    )


def _enacttrust(data: bytes) -> Tpm2Evidence:
    parts = decode_enacttrust(data)
    return Tpm2Evidence(
        scheme="tpm2",
        media_type=ENACTTRUST_MEDIA_TYPE,
        raw=data,
        quote=_quote(parts.quote),
        signature=decode_signature(parts.signature),
        key_id=parts.key_id,
    )


def _quote(data: bytes) -> Attest:
    attest = decode_attest(data)
    if not isinstance(attest.attested, Quoted):
        raise UnsupportedError(
            "certifies a key; Evidence about a machine is a quote of its registers",
            format="TPMS_ATTEST",
        )
    return attest


def _octets(
    members: dict[int | str | bytes, object], key: int, *, required: bool = True
) -> bytes | None:
    value = members.get(key)
    if isinstance(value, bytes):
        return value
    if key not in members:
        if not required:
            return None
        raise DecodeError(f"member {key} ({_NAMES[key]}) is missing", format=_FORMAT)
    raise DecodeError(f"member {key} ({_NAMES[key]}) is not a byte string", format=_FORMAT)


def _certificates(value: object) -> tuple[x509.Certificate, ...]:
    place = f"member {_CERTIFICATES} ({_NAMES[_CERTIFICATES]})"
    if not isinstance(value, list) or not all(isinstance(each, bytes) for each in value):
        raise DecodeError(f"{place} is not an array of byte strings", format=_FORMAT)
    if len(value) > MAX_CERTIFICATES:
        raise LimitExceededError(format=_FORMAT, limit="MAX_CERTIFICATES", value=MAX_CERTIFICATES)
    return tuple(load_certificate(each, format=f"{_FORMAT}: {place}") for each in value)
