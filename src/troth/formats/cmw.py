# SPDX-License-Identifier: Apache-2.0
"""RATS Conceptual Message Wrappers: which message this is, and messages bundled together.

A wrapper protects nothing. Parts of a collection that are signed one by one can be mixed with
parts of another; what binds them is the scheme's to say and to check.

Source: RFC 9999 sections 3.1 to 3.4 (record, tag, collection, demuxing), 4.1 (signed CBOR CMW)
and 4.4 (X.509 extension); RFC 9277 appendix B (tag numbers).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import IntFlag
from types import MappingProxyType

from cryptography import x509

from troth.errors import (
    ApiMisuseError,
    DecodeError,
    LimitExceededError,
    SignatureError,
    UnsupportedError,
)
from troth.formats import cbor
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.cose import CONTENT_TYPE, Header, Sign1, sign1
from troth.formats.limits import DEFAULT_LIMITS, MAX_CMW_DEPTH, Limits
from troth.formats.media_type import CONTENT_FORMATS, parse_media_type
from troth.formats.quoting import shown
from troth.formats.signer import Signer
from troth.formats.strict_json import decode_json
from troth.formats.strict_json import encode_json as encode_json_text
from troth.formats.verification_key import VerificationKey

__all__ = [
    "CMW_CBOR",
    "CMW_COSE",
    "CMW_JSON",
    "CMW_OID",
    "Cmw",
    "CmwCollection",
    "CmwRecord",
    "Indicator",
    "decode",
    "decode_extension",
    "encode_cbor",
    "encode_extension",
    "encode_json",
    "from_cbor_value",
    "from_certificate",
    "from_json_value",
    "sign_cmw",
    "to_cbor_value",
    "to_json_value",
    "verify_signed_cmw",
]

CMW_CBOR = "application/cmw+cbor"
CMW_JSON = "application/cmw+json"
CMW_COSE = "application/cmw+cose"
CMW_OID = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.35")
"""id-pe-cmw."""

_FORMAT = "CMW"
_COLLECTION_TYPE = "__cmwc_t"
# RFC 3986 section 4.3: an absolute URI has no fragment. The OID form is RFC 9999's own.
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=%-]+")
_OID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))*")

_HIGHEST_CONTENT_FORMAT = 65_535


class Indicator(IntFlag):
    """What kinds of conceptual message a record holds (RFC 9999 section 3.1.1)."""

    UNSTATED = 0
    REFERENCE_VALUES = 1
    ENDORSEMENTS = 2
    EVIDENCE = 4
    ATTESTATION_RESULTS = 8
    APPRAISAL_POLICY = 16


_ALL_INDICATORS = 31


@dataclass(frozen=True, slots=True)
class CmwRecord:
    """One conceptual message and its type.

    Attributes:
        type: media type, or the number of a CoAP Content-Format.
        value: the message.
        indicator: kinds of message in it, where the type does not tell.
        tagged: the record travels as a CBOR tag whose number is made from the Content-Format.
    """

    type: str | int
    value: bytes
    indicator: Indicator = Indicator.UNSTATED
    tagged: bool = False

    def __post_init__(self) -> None:
        if defect := _record_defect(self.type, self.value, self.indicator, tagged=self.tagged):
            raise ApiMisuseError(f"CMW record: {defect}")

    @property
    def media_type(self) -> str:
        """The media type in Troth's one spelling; "" for a Content-Format that Troth lacks."""
        if isinstance(self.type, int):
            return CONTENT_FORMATS.get(self.type, "")
        return str(parse_media_type(self.type))


@dataclass(frozen=True, slots=True)
class CmwCollection:
    """Labelled wrappers, one or more.

    Attributes:
        entries: wrappers by label; integer labels exist in CBOR only.
        type: URI or OID that says how the collection is put together, or "".
    """

    entries: Mapping[str | int, Cmw]
    type: str = ""

    def __post_init__(self) -> None:
        if defect := _collection_defect(self.entries, self.type):
            raise ApiMisuseError(f"CMW collection: {defect}")
        object.__setattr__(self, "entries", MappingProxyType(dict(self.entries)))


Cmw = CmwRecord | CmwCollection


def decode(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Cmw:
    """Decode a wrapper, JSON or CBOR, as its first octet says (RFC 9999 section 3.4).

    Raises:
        DecodeError: not a CMW, or a limit was crossed.
    """
    if data[:1] in {b"[", b"{"}:
        return from_json_value(decode_json(data, format=_FORMAT, limits=limits))
    return _decode_cbor(data, limits)


def _decode_cbor(data: bytes, limits: Limits) -> Cmw:
    # RFC 9999 section 3.4 lists the indefinite-length record and collection among what may come.
    value = cbor.decode(data, format=_FORMAT, limits=limits, allow_indefinite=True)
    return from_cbor_value(value)


def from_cbor_value(value: object) -> Cmw:
    """Read a wrapper from a decoded CBOR item, such as the CWT claim `cmw`.

    Raises:
        DecodeError: not a CMW.
    """
    return _read(value, _cbor_record, 1)


def from_json_value(value: object) -> Cmw:
    """Read a wrapper from a decoded JSON value, such as the JWT claim `cmw`.

    Raises:
        DecodeError: not a CMW.
    """
    return _read(value, _json_record, 1)


def encode_cbor(cmw: Cmw) -> bytes:
    """Encode as CBOR, deterministically."""
    return cbor.encode(to_cbor_value(cmw))


def encode_json(cmw: Cmw) -> bytes:
    """Encode as JSON.

    Raises:
        ApiMisuseError: an integer label, or a Content-Format whose media type Troth lacks.
    """
    return encode_json_text(to_json_value(cmw))


def to_cbor_value(cmw: Cmw) -> object:
    """Return what `cbor.encode` takes, for embedding in another message."""
    if isinstance(cmw, CmwRecord):
        if cmw.tagged and isinstance(cmw.type, int):
            return cbor.Tag(_tag_number(cmw.type), cmw.value)
        record: list[object] = [cmw.type, cmw.value]
        return [*record, int(cmw.indicator)] if cmw.indicator else record
    value: dict[str | int, object] = {_COLLECTION_TYPE: cmw.type} if cmw.type else {}
    value.update((label, to_cbor_value(entry)) for label, entry in cmw.entries.items())
    return value


def to_json_value(cmw: Cmw) -> object:
    """Return what JSON takes, for embedding in another message; a tag becomes a record.

    Raises:
        ApiMisuseError: as `encode_json`.
    """
    if isinstance(cmw, CmwRecord):
        kind = CONTENT_FORMATS.get(cmw.type, "") if isinstance(cmw.type, int) else cmw.type
        if not kind:
            raise ApiMisuseError(f"Content-Format {cmw.type} has no media type to write in JSON")
        record: list[object] = [kind, encode_base64url(cmw.value)]
        return [*record, int(cmw.indicator)] if cmw.indicator else record
    value: dict[str, object] = {_COLLECTION_TYPE: cmw.type} if cmw.type else {}
    for label, entry in cmw.entries.items():
        if not isinstance(label, str):
            raise ApiMisuseError(f"JSON has no place for the integer label {label}")
        value[label] = to_json_value(entry)
    return value


def sign_cmw(cmw: Cmw, signer: Signer, *, unprotected: Header = MappingProxyType({})) -> bytes:
    """Sign a wrapper as CBOR (media type `CMW_COSE`).

    Raises:
        ApiMisuseError: `unprotected` holds a header of the protected ones.
    """
    return sign1(
        encode_cbor(cmw), signer, protected={CONTENT_TYPE: CMW_CBOR}, unprotected=unprotected
    )


def verify_signed_cmw(
    data: bytes,
    key: VerificationKey,
    *,
    algorithms: Collection[str],
    limits: Limits = DEFAULT_LIMITS,
) -> Cmw:
    """Verify a signed CBOR wrapper and decode what was signed.

    Says nothing about the signatures inside it, nor about when it was signed.

    Raises:
        DecodeError: not a COSE_Sign1 (tagged or not), or its payload is not a CMW.
        SignatureError: it is not the key's signature over an `application/cmw+cbor`.
    """
    message = Sign1.decode(data, format="signed CMW", tagging="either", limits=limits)
    payload = message.verify(key, algorithms=algorithms)
    if message.protected.get(CONTENT_TYPE) != CMW_CBOR:
        raise SignatureError(f"signed CMW: what was signed is not declared as {CMW_CBOR}")
    return _decode_cbor(payload, limits)


def decode_extension(value: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Cmw:
    """Decode the value of the id-pe-cmw extension (DER CHOICE of text and octets).

    Raises:
        DecodeError: not DER, or not the CMW that its type promises.
    """
    kind, content = _decode_der(value)
    if kind == _UTF8_STRING:
        return from_json_value(decode_json(content, format=_FORMAT, limits=limits))
    return _decode_cbor(content, limits)


def encode_extension(cmw: Cmw, *, json: bool = False) -> bytes:
    """Encode the value of the id-pe-cmw extension, CBOR unless `json` is asked for.

    RFC 9999 section 4.4 wants the extension non-critical.
    """
    return (
        _encode_der(_UTF8_STRING, encode_json(cmw))
        if json
        else _encode_der(_OCTET_STRING, encode_cbor(cmw))
    )


def from_certificate(
    certificate: x509.Certificate | x509.CertificateSigningRequest,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Cmw | None:
    """Return the wrapper that a certificate or request carries, or None.

    Raises:
        DecodeError: the extension is there and is not a CMW, or the extensions are malformed.
    """
    try:
        extension = certificate.extensions.get_extension_for_oid(CMW_OID)
    except x509.ExtensionNotFound:
        return None
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as exc:
        raise DecodeError(f"malformed extensions: {exc}", format="certificate") from exc
    value = extension.value
    if not isinstance(value, x509.UnrecognizedExtension):
        raise DecodeError("the extension is not opaque", format="certificate")
    return decode_extension(value.value, limits=limits)


def _read(value: object, record: Callable[[object], CmwRecord], depth: int) -> Cmw:
    if not isinstance(value, Mapping):
        return record(value)
    if depth > MAX_CMW_DEPTH:
        raise LimitExceededError(format=_FORMAT, limit="max_cmw_depth", value=MAX_CMW_DEPTH)
    kind = value.get(_COLLECTION_TYPE, "")
    if not isinstance(kind, str) or (not kind and _COLLECTION_TYPE in value):
        raise DecodeError(f"{_COLLECTION_TYPE} is neither a URI nor an OID", format=_FORMAT)
    entries = {
        label: _read(entry, record, depth + 1)
        for label, entry in value.items()
        if label != _COLLECTION_TYPE
    }
    if defect := _collection_defect(entries, kind):
        raise DecodeError(f"collection: {defect}", format=_FORMAT)
    return CmwCollection(entries, kind)


def _cbor_record(value: object) -> CmwRecord:
    match value:
        case cbor.Tag(number=number, value=bytes() as content):
            return _record(_content_format(number), content, tagged=True)
        case [(int() | str()) as kind, bytes() as content]:
            return _record(kind, content)
        case [(int() | str()) as kind, bytes() as content, int() as indicator]:
            return _record(kind, content, indicator)
    raise DecodeError(
        "neither a record [type, bytes, indicator?], a tagged byte string nor a collection",
        format=_FORMAT,
    )


def _json_record(value: object) -> CmwRecord:
    match value:
        case [str() as kind, str() as content]:
            return _record(kind, decode_base64url(content, format=_FORMAT))
        case [str() as kind, str() as content, int() as indicator]:
            return _record(kind, decode_base64url(content, format=_FORMAT), indicator)
    raise DecodeError(
        "neither a record [media type, base64url, indicator?] nor a collection", format=_FORMAT
    )


def _record(
    kind: str | int, value: bytes, indicator: int | None = None, *, tagged: bool = False
) -> CmwRecord:
    # "The absence of conceptual message indicator information is indicated by omitting the ind
    # field entirely": a zero that is written out is a defect.
    defect = _record_defect(kind, value, indicator or 0, tagged=tagged)
    if not defect and (indicator is False or indicator == 0):
        defect = "an indicator of zero"
    if defect:
        raise DecodeError(f"record: {defect}", format=_FORMAT)
    return CmwRecord(kind, value, Indicator(indicator or 0), tagged)


def _record_defect(kind: str | int, value: bytes, indicator: int, *, tagged: bool) -> str:
    """Say what is wrong with a record, or "". Its numbers may be booleans from outside."""
    if isinstance(kind, str):
        try:
            parse_media_type(kind)
        except DecodeError as exc:
            return str(exc)
        if tagged:
            return "a tag is made from a Content-Format, not from a media type"
    elif isinstance(kind, bool) or not 0 <= kind <= _HIGHEST_CONTENT_FORMAT:
        return f"{kind} is not a Content-Format"
    elif tagged and kind > _HIGHEST_TAGGED:
        return f"Content-Format {kind} has no tag (RFC 9277 appendix B ends at {_HIGHEST_TAGGED})"
    if not value:
        return "an empty message"
    if isinstance(indicator, bool) or not 0 <= indicator <= _ALL_INDICATORS:
        return f"an indicator of {indicator}, where 1 to 31 are registered"
    return "a tag with an indicator" if tagged and indicator else ""


def _collection_defect(entries: Mapping[str | int, object], kind: str) -> str:
    """Say what is wrong with a collection, or ""."""
    if not entries:
        return "no entry"
    if kind and not (_ABSOLUTE_URI.fullmatch(kind) or _OID.fullmatch(kind)):
        return f"the type {shown(kind)} is neither an absolute URI nor an OID"
    for label in entries:
        if isinstance(label, bytes | bool) or label == _COLLECTION_TYPE:
            return f"the label {shown(label)}"
    return ""


# RFC 9277 appendix B: the two low octets of the tag number run from 1 to 255, so that none of
# the four is zero.
_TAG_BASE = 0x63740101
_TAGGED_PER_OCTET = 255
_HIGHEST_TAGGED = _TAGGED_PER_OCTET * _TAGGED_PER_OCTET - 1


def _tag_number(content_format: int) -> int:
    high, low = divmod(content_format, _TAGGED_PER_OCTET)
    return _TAG_BASE + high * 256 + low


def _content_format(number: int) -> int:
    high, low = divmod(number - _TAG_BASE, 256)
    if not 0 <= high < _TAGGED_PER_OCTET or low == _TAGGED_PER_OCTET:
        raise UnsupportedError(
            f"tag {number} is not made from a Content-Format (RFC 9277)", format=_FORMAT
        )
    return high * _TAGGED_PER_OCTET + low


_UTF8_STRING, _OCTET_STRING = 0x0C, 0x04


def _encode_der(kind: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([kind, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([kind, 0x80 | len(octets)]) + octets + content


def _decode_der(value: bytes) -> tuple[int, bytes]:
    kind = value[0] if value else 0
    if kind not in {_UTF8_STRING, _OCTET_STRING}:
        raise DecodeError("neither a UTF8String nor an OCTET STRING", format="id-pe-cmw", offset=0)
    # Any length but the one shortest and exact form differs from what is encoded again.
    lengths = value[1] & 0x7F if len(value) > 1 and value[1] >= 0x80 else 0
    content = value[2 + lengths :]
    if _encode_der(kind, content) != value:
        raise DecodeError("the length is not the content's, in DER", format="id-pe-cmw", offset=1)
    return kind, content
