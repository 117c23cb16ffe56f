# SPDX-License-Identifier: Apache-2.0
"""A signed CoRIM: COSE_Sign1 around a CoRIM, with metadata about the signer.

Source: draft-ietf-rats-corim (0b855af) "Signed CoRIM"; RFC 9597 (CWT claims in a header).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from troth.errors import DecodeError, FreshnessError, SignatureError
from troth.formats import cbor, cose
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.common import Validity, decode_seconds, decode_validity
from troth.formats.corim.corim import MEDIA_TYPE, Corim
from troth.formats.corim.node import Node
from troth.formats.keys import VerificationKey, thumbprint
from troth.formats.limits import RIM_LIMITS, Limits
from troth.formats.signatures import SIGNATURE_ALGORITHMS
from troth.formats.signer import Signer

__all__ = [
    "ALGORITHMS",
    "SIGNED_MEDIA_TYPE",
    "SignedCorim",
    "VerifiedCorim",
    "decode_any",
    "is_signed",
    "sign_corim",
]

SIGNED_MEDIA_TYPE: Final = "application/rim+cose"

ALGORITHMS: Final = frozenset(SIGNATURE_ALGORITHMS)
"""Signature algorithms under which a CoRIM is believed."""

_META: Final = 8
_HASH_ENVELOPE: Final = frozenset({258, 259, 260})
_FORMAT: Final = "signed CoRIM"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCorim:
    """A CoRIM whose signature was verified. Only `SignedCorim.verify` makes one.

    Attributes:
        corim: the content.
        signer: RFC 7638 SHA-256 thumbprint (hex) of the key that signed it.
        signer_name: what the signer calls itself; believed as far as the key is.
        signature_validity: when the signature may be relied on, or None.
        raw: the signed octets, whole.
    """

    corim: Corim
    signer: str
    signer_name: str
    signature_validity: Validity | None
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCorim:
    """A signed CoRIM, as decoded. Nothing in it is authentic before `verify`.

    Attributes:
        message: the COSE_Sign1.
        signer_name: who claims to have signed it.
        signer_uri: a URI of the same, or None.
        signature_validity: when the signature may be relied on, or None.
        raw: the octets as received.
    """

    message: cose.Sign1
    signer_name: str
    signer_uri: str | None
    signature_validity: Validity | None
    raw: bytes = field(repr=False)

    @classmethod
    def decode(cls, data: bytes, *, limits: Limits = RIM_LIMITS) -> SignedCorim:
        """Decode the envelope; the payload stays undecoded.

        Raises:
            DecodeError: not a COSE_Sign1, another content type, no metadata about the signer, or
                two that contradict each other.
            UnsupportedError: a hash envelope, whose payload is a digest.
        """
        message = cose.Sign1.decode(data, format=_FORMAT, limits=limits)
        header = Node(dict(message.protected), format=_FORMAT, name="protected header")
        if _HASH_ENVELOPE & header.entries().keys():
            raise header.unsupported(
                "a hash envelope: the content travels elsewhere",
                remedy="Give the CoRIM that is signed directly.",
            )
        content_type = header.member(cose.CONTENT_TYPE, "content-type")
        if content_type.value != MEDIA_TYPE:
            raise content_type.error(f"{content_type.value!r}; expected {MEDIA_TYPE}")
        name, uri, validity = _metadata(header)
        return cls(
            message=message,
            signer_name=name,
            signer_uri=uri,
            signature_validity=validity,
            raw=data,
        )

    def unverified_corim(self, *, limits: Limits = RIM_LIMITS) -> Corim:
        """Decode the payload without verifying anything, for display only."""
        return Corim.decode(self.message.payload, limits=limits)

    def verify(
        self,
        keys: Sequence[VerificationKey],
        *,
        now: datetime,
        limits: Limits = RIM_LIMITS,
    ) -> VerifiedCorim:
        """Verify that the holder of one of `keys` signed this, and decode what was signed.

        Certificates in the envelope are not looked at: the keys are the trust anchors. Whether
        the content is still valid, and whether it makes sense, is seen when it is provisioned.

        Args:
            keys: the keys that the operator trusts for CoRIMs; none means nothing is believed.
            now: the time, for the period of the signature.
            limits: what decoding the content may cost.

        Raises:
            SignatureError: no key verifies it.
            FreshnessError: the signature is outside its period.
            DecodeError: signed, but not a CoRIM.
        """
        key = self._signing_key(keys)
        validity = self.signature_validity
        if validity is not None:
            _check_period(validity, now, f"the signature of {self.signer_name!r}")
        return VerifiedCorim(
            corim=self.unverified_corim(limits=limits),
            signer=thumbprint(key),
            signer_name=self.signer_name,
            signature_validity=validity,
            raw=self.raw,
        )

    def _signing_key(self, keys: Sequence[VerificationKey]) -> VerificationKey:
        refusals: list[str] = []
        for key in keys:
            try:
                self.message.verify(key, algorithms=ALGORITHMS)
            except SignatureError as exc:
                refusals.append(f"{key.source or 'key'}: {exc}")
            else:
                return key
        reasons = "; ".join(refusals) or "no key is trusted for CoRIMs"
        raise SignatureError(
            f"{_FORMAT} of {self.signer_name!r}: {reasons}",
            remedy="Give the public key that the signer published.",
        )


def sign_corim(
    corim: Corim,
    signer: Signer,
    *,
    signer_name: str,
    signer_uri: str | None = None,
    validity: Validity | None = None,
) -> bytes:
    """Sign a CoRIM.

    The signer is named twice, as CWT claims and in the older corim-meta map, which Verifiers in
    the field still require; both say the same.

    Args:
        corim: the content.
        signer: the key; its `key_id`, if any, becomes `kid`.
        signer_name: name of the organization that signs.
        signer_uri: a URI of it.
        validity: when the signature may be relied on; parts of a second are dropped.
    """
    signer_map: dict[int, object] = {0: signer_name}
    if signer_uri is not None:
        signer_map[1] = Tag(tags.URI, signer_uri)
    meta: dict[int, object] = {0: signer_map}
    claims: dict[int, object] = {1: signer_name, 2: corim.id}
    if validity is not None:
        meta[1] = validity.to_cbor()
        claims[4] = int(validity.not_after.timestamp())
        if validity.not_before is not None:
            claims[5] = int(validity.not_before.timestamp())
    protected: dict[int | str, object] = {
        cose.CONTENT_TYPE: MEDIA_TYPE,
        _META: cbor.encode(meta),
        cose.CWT_CLAIMS: claims,
    }
    if signer.key_id:
        protected[cose.KID] = signer.key_id.encode()
    return cose.sign1(corim.encode(), signer, protected=protected)


def _metadata(header: Node) -> tuple[str, str | None, Validity | None]:
    meta, claims = header.optional(_META, "corim-meta"), header.optional(15, "CWT-Claims")
    if meta is None and claims is None:
        raise header.error("neither CWT-Claims (15) nor corim-meta (8) names the signer")
    by_meta = _decode_meta(meta) if meta else None
    by_claims = _decode_claims(claims) if claims else None
    if by_meta and by_claims:
        # "the signer MUST ensure that their contents are semantically identical"
        if by_meta[0] != by_claims[0]:
            raise header.error(f"signed by {by_meta[0]!r} and by {by_claims[0]!r}")
        if by_meta[2] != by_claims[2]:
            raise header.error("CWT-Claims and corim-meta state different periods")
    name, uri, start_end = by_meta or by_claims or ("", None, None)
    if start_end is None or start_end[1] is None:
        return name, uri, None
    return name, uri, Validity(start_end[0], start_end[1])


_Period = tuple[datetime | None, datetime | None] | None


def _decode_meta(node: Node) -> tuple[str, str | None, _Period]:
    encoded = node.octets(maximum=16_384)
    meta = node.child("map", cbor.decode(encoded, format=f"{_FORMAT} corim-meta"))
    meta.only(frozenset({0, 1}))
    signer = meta.member(0, "signer")
    uri = signer.optional(1, "signer-uri")
    validity = meta.optional(1, "signature-validity")
    period: _Period = None
    if validity:
        decoded = decode_validity(validity)
        period = (decoded.not_before, decoded.not_after)
    return (
        signer.member(0, "signer-name").text(maximum=1024),
        uri.tagged(tags.URI).text(maximum=2048) if uri else None,
        period,
    )


def _decode_claims(node: Node) -> tuple[str, str | None, _Period]:
    issuer = node.member(1, "iss").text(maximum=1024)
    subject = node.optional(2, "sub")
    if subject:
        subject.text(maximum=1024)
    expires, starts = node.optional(4, "exp"), node.optional(5, "nbf")
    if expires is None:
        if starts:
            raise starts.unsupported("nbf without exp: a period without an end")
        return issuer, None, None
    return issuer, None, (decode_seconds(starts) if starts else None, decode_seconds(expires))


def _check_period(validity: Validity, now: datetime, what: str) -> None:
    if validity.not_before is not None and now < validity.not_before:
        raise FreshnessError(f"{what} is not valid before {validity.not_before:%FT%TZ}")
    if now > validity.not_after:
        raise FreshnessError(f"{what} expired at {validity.not_after:%FT%TZ}")


def is_signed(data: bytes) -> bool:
    """Say whether `data` begins like a signed CoRIM (tag 18) rather than an unsigned one."""
    return data[:1] == b"\xd2"


def decode_any(data: bytes, *, limits: Limits = RIM_LIMITS) -> Corim | SignedCorim:
    """Decode a CoRIM, signed or not.

    Raises:
        DecodeError: neither.
    """
    if is_signed(data):
        return SignedCorim.decode(data, limits=limits)
    if data[:3] != b"\xd9\x01\xf5":
        raise DecodeError(
            "begins neither with tag 501 (CoRIM) nor with tag 18 (signed CoRIM)",
            format="CoRIM",
            remedy="Give a CoRIM in CBOR, not JSON, PEM or base64.",
        )
    return Corim.decode(data, limits=limits)
