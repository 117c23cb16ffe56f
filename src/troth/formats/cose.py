# SPDX-License-Identifier: Apache-2.0
"""COSE_Sign1 and COSE_Mac0, strict by construction.

Decoding refuses what RFC 9052 forbids: a label in both headers, `crit` outside the protected one
or naming something absent or unknown to the caller, repeated labels, trailing bytes. Verifying
takes the algorithm from the protected header only, from the caller's list only, and only for a
key that fits it. The octets that are verified are the octets that were received.

Nothing here finds keys: `key_id` and `x5chain` are hints from an unauthenticated message.

Source: RFC 9052 sections 3, 4.2, 4.4, 6.2 and 6.3; RFC 9360 section 2.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal, Self

from cryptography import x509

from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, SignatureError
from troth.formats import cbor
from troth.formats.cose_key import ALGORITHM_IDS, ALGORITHM_NAMES, CoseKey
from troth.formats.limits import DEFAULT_LIMITS, MAX_CERTIFICATES, Limits
from troth.formats.quoting import shown
from troth.formats.signatures import (
    MAC_ALGORITHMS,
    SIGNATURE_ALGORITHMS,
    admit_algorithm,
    compute_mac,
    verify_mac,
    verify_signature,
)
from troth.formats.signer import Signer
from troth.formats.verification_key import VerificationKey

__all__ = [
    "ALG",
    "CONTENT_TYPE",
    "CRIT",
    "CWT_CLAIMS",
    "KID",
    "X5CHAIN",
    "CoseKey",
    "Header",
    "Label",
    "Mac0",
    "Sign1",
    "Tagging",
    "mac0",
    "sign1",
]

ALG, CRIT, CONTENT_TYPE, KID = 1, 2, 3, 4
CWT_CLAIMS, X5CHAIN = 15, 33

Label = int | str
Header = Mapping[Label, object]
Tagging = Literal["required", "absent", "either"]
"""Whether a message carries its COSE tag. A protocol settles which (RFC 9052 section 2)."""

# What the code below makes use of. RFC 9052 section 3.1 lets a sender leave the basic labels out
# of `crit`; one who names them gets what the name promises.
_UNDERSTOOD = frozenset({ALG, CONTENT_TYPE, KID})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """What COSE_Sign1 and COSE_Mac0 have in common.

    Attributes:
        protected: the header that the signature or MAC covers.
        unprotected: the other one: hints at best.
        payload: the payload; b"" where it is detached.
        detached: the payload travels elsewhere.
        proof: the signature or MAC.
        protected_bytes: the protected header as received.
        format: what the message is, for messages about it.
    """

    TAG: ClassVar[int]
    CONTEXT: ClassVar[str]
    ALGORITHMS: ClassVar[Collection[str]]

    protected: Header
    unprotected: Header
    payload: bytes
    detached: bool
    proof: bytes
    protected_bytes: bytes = field(repr=False)
    format: str

    @classmethod
    def decode(
        cls,
        data: bytes,
        *,
        format: str,
        tagging: Tagging = "required",
        detached: bool = False,
        understood: Collection[Label] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> Self:
        """Decode one message. Nothing in it is authentic before `verify`.

        Args:
            data: the encoded message, whole.
            format: what it should be, for messages.
            tagging: whether the COSE tag must, must not or may be there.
            detached: the payload travels elsewhere and must be nil here.
            understood: further labels that the caller processes if `crit` names them.
            limits: what decoding may cost.

        Raises:
            DecodeError: not such a message, or one of the refusals above.
        """
        value = cbor.decode(data, format=format, limits=limits)
        return cls.from_value(
            value, format=format, tagging=tagging, detached=detached, understood=understood
        )

    @classmethod
    def from_value(
        cls,
        value: object,
        *,
        format: str,
        tagging: Tagging = "required",
        detached: bool = False,
        understood: Collection[Label] = (),
    ) -> Self:
        """Read a message from a decoded data item, as from inside another tag or array.

        Raises:
            DecodeError: as `decode`.
        """
        match _untagged(value, cls.TAG, tagging, format):
            case [
                bytes() as protected_bytes,
                dict() as unprotected,
                (bytes() | None) as payload,
                bytes() as proof,
            ]:
                pass
            case _:
                raise DecodeError(
                    "not an array of protected header, unprotected header, payload and proof",
                    format=format,
                )
        if (payload is None) != detached:
            found, wanted = ("attached", "nil") if detached else ("nil", "attached")
            raise DecodeError(f"the payload is {found}, expected {wanted}", format=format)
        protected = _protected_header(protected_bytes, format)
        _check_headers(protected, unprotected, understood, format)
        return cls(
            protected=MappingProxyType(protected),
            unprotected=MappingProxyType(unprotected),
            payload=payload or b"",
            detached=detached,
            proof=proof,
            protected_bytes=protected_bytes,
            format=format,
        )

    @property
    def algorithm(self) -> str:
        """The algorithm that the protected header names, or "" where Troth knows none such."""
        number = self.protected.get(ALG)
        return ALGORITHM_NAMES.get(number, "") if type(number) is int else ""

    @property
    def key_id(self) -> bytes:
        """The `kid` in either header, or b"". A hint."""
        kid = self.protected.get(KID, self.unprotected.get(KID))
        return kid if isinstance(kid, bytes) else b""

    def verify(
        self,
        key: VerificationKey,
        *,
        algorithms: Collection[str],
        external_aad: bytes = b"",
        detached_payload: bytes | None = None,
    ) -> bytes:
        """Verify that the holder of `key` made this message, and return the payload.

        Says nothing about the key's owner, nor about when the message was made.

        Args:
            key: the one key to verify with.
            algorithms: the algorithms that the caller accepts; none means none.
            external_aad: data outside the message that it must be bound to.
            detached_payload: the payload, if the message was decoded as detached.

        Raises:
            SignatureError: the algorithm is absent from the protected header, not accepted, or
                not the key's; or the proof does not verify.
            ApiMisuseError: a detached payload is missing, or given where one is attached.
        """
        if (detached_payload is not None) != self.detached:
            raise ApiMisuseError("detached_payload goes with a message decoded as detached")
        payload = self.payload if detached_payload is None else detached_payload
        algorithm = self.algorithm
        if algorithm not in self.ALGORITHMS:
            stated = shown(self.protected[ALG]) if ALG in self.protected else "absent"
            raise SignatureError(
                f"{self.format}: alg in the protected header is {stated}; "
                f"a {self.CONTEXT} message needs one of {', '.join(sorted(self.ALGORITHMS))}"
            )
        admit_algorithm(algorithm, key, algorithms=algorithms, format=self.format)
        covered = cbor.encode([self.CONTEXT, self.protected_bytes, external_aad, payload])
        self._check(key, algorithm, covered)
        return payload

    def _check(self, key: VerificationKey, algorithm: str, covered: bytes) -> None:
        raise NotImplementedError

    def x5chain(self) -> list[x509.Certificate]:
        """Return the certificates in `x5chain`, leaf first, from whichever header has it.

        They are as the message gave them: no path is built, nothing is verified.

        Raises:
            DecodeError: neither a certificate nor an array of two or more.
            LimitExceededError: more than `MAX_CERTIFICATES`.
        """
        chain = self.protected.get(X5CHAIN, self.unprotected.get(X5CHAIN))
        if chain is None:
            return []
        members = chain if isinstance(chain, list) and len(chain) > 1 else [chain]
        if len(members) > MAX_CERTIFICATES:
            raise LimitExceededError(
                format=self.format, limit="max_certificates", value=MAX_CERTIFICATES
            )
        return [self._certificate(member) for member in members]

    def _certificate(self, member: object) -> x509.Certificate:
        if not isinstance(member, bytes):
            raise DecodeError("x5chain holds something else than byte strings", format=self.format)
        try:
            return x509.load_der_x509_certificate(member)
        except (ValueError, x509.InvalidVersion) as exc:
            raise DecodeError(f"x5chain: {exc}", format=self.format) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign1(_Message):
    """One payload, one signature (tag 18)."""

    TAG: ClassVar[int] = 18
    CONTEXT: ClassVar[str] = "Signature1"
    ALGORITHMS: ClassVar[Collection[str]] = SIGNATURE_ALGORITHMS

    @property
    def signature(self) -> bytes:
        """The signature; for ECDSA r and s."""
        return self.proof

    def _check(self, key: VerificationKey, algorithm: str, covered: bytes) -> None:
        verify_signature(key, algorithm, self.proof, covered, format=self.format)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mac0(_Message):
    """One payload, one MAC under a key that both sides know already (tag 17)."""

    TAG: ClassVar[int] = 17
    CONTEXT: ClassVar[str] = "MAC0"
    ALGORITHMS: ClassVar[Collection[str]] = frozenset(MAC_ALGORITHMS)

    @property
    def tag(self) -> bytes:
        """The MAC."""
        return self.proof

    def _check(self, key: VerificationKey, algorithm: str, covered: bytes) -> None:
        verify_mac(key, algorithm, self.proof, covered, format=self.format)


def sign1(
    payload: bytes,
    signer: Signer,
    *,
    protected: Header = MappingProxyType({}),
    unprotected: Header = MappingProxyType({}),
    tagged: bool = True,
    detached: bool = False,
    external_aad: bytes = b"",
) -> bytes:
    """Sign `payload`. `alg` comes from the signer; `kid` is put in by who wants it there.

    Raises:
        ApiMisuseError: a header that `Sign1.decode` would refuse, or that sets `alg`.
    """
    protected_bytes = _encoded_headers(signer.algorithm, protected, unprotected)
    covered = cbor.encode([Sign1.CONTEXT, protected_bytes, external_aad, payload])
    attached = None if detached else payload
    message = [protected_bytes, unprotected, attached, signer.sign(covered)]
    return cbor.encode(cbor.Tag(Sign1.TAG, message) if tagged else message)


def mac0(
    payload: bytes,
    key: bytes,
    *,
    algorithm: str = "HMAC 256/256",
    protected: Header = MappingProxyType({}),
    unprotected: Header = MappingProxyType({}),
    tagged: bool = True,
    detached: bool = False,
    external_aad: bytes = b"",
) -> bytes:
    """Authenticate `payload` with a symmetric key.

    Raises:
        ApiMisuseError: as `sign1`, or a key shorter than the hash.
    """
    protected_bytes = _encoded_headers(algorithm, protected, unprotected)
    covered = cbor.encode([Mac0.CONTEXT, protected_bytes, external_aad, payload])
    attached = None if detached else payload
    message = [protected_bytes, unprotected, attached, compute_mac(key, algorithm, covered)]
    return cbor.encode(cbor.Tag(Mac0.TAG, message) if tagged else message)


def _untagged(value: object, number: int, tagging: Tagging, format: str) -> object:
    if isinstance(value, cbor.Tag):
        if tagging != "absent" and value.number == number:
            return value.value
        wanted = "no tag" if tagging == "absent" else f"tag {number}"
        raise DecodeError(f"tag {value.number}, expected {wanted}", format=format)
    if tagging == "required":
        raise DecodeError(f"no tag, expected tag {number}", format=format)
    return value


def _protected_header(data: bytes, format: str) -> dict[Label, object]:
    # RFC 9052 section 3: an empty header is an empty byte string; h'a0' must be tolerated.
    value = cbor.decode(data, format=f"{format} protected header") if data else {}
    if not isinstance(value, dict):
        raise DecodeError("the protected header is not a map", format=format)
    return value


def _check_headers(
    protected: Header, unprotected: Header, understood: Collection[Label], format: str
) -> None:
    if bytes in map(type, (*protected, *unprotected)):
        raise DecodeError("a header label is a byte string", format=format)
    # RFC 9052 section 3: "Labels in each of the maps MUST be unique", across both maps as well.
    if twice := protected.keys() & unprotected.keys():
        raise DecodeError(f"label {shown(twice.pop())} in both headers", format=format)
    if CRIT in unprotected:
        raise DecodeError("crit in the unprotected header", format=format)
    if CRIT not in protected:
        return
    critical = protected[CRIT]
    if not isinstance(critical, list) or not critical:
        raise DecodeError("crit is not an array of one label or more", format=format)
    for label in critical:
        if type(label) not in {int, str} or label not in protected:
            raise DecodeError(
                f"crit names {shown(label)}, which is not in the protected header", format=format
            )
        if label not in _UNDERSTOOD and label not in understood:
            raise DecodeError(
                f"crit names {shown(label)}, which Troth does not know", format=format
            )


def _encoded_headers(algorithm: str, protected: Header, unprotected: Header) -> bytes:
    if ALG in protected or ALG in unprotected:
        raise ApiMisuseError("alg is set by the signer")
    if algorithm not in ALGORITHM_IDS:
        raise ApiMisuseError(f"{algorithm!r} has no COSE number")
    header = {ALG: ALGORITHM_IDS[algorithm], **protected}
    critical = protected.get(CRIT, ())
    named = critical if isinstance(critical, list) else []
    try:
        _check_headers(header, unprotected, named, "header")
    except DecodeError as exc:
        raise ApiMisuseError(str(exc)) from exc
    return cbor.encode(header)
