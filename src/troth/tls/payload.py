# SPDX-License-Identifier: Apache-2.0
"""Attestation payloads that do not fit as they are: compressed, or sent by reference.

A payload goes as it is where the peer takes that many octets. Above that it is compressed where
the peer takes that and it then fits, else put where the peer can fetch it, if both sides are set
up for that. A reference is the CBOR map {1: SHA-256 of the payload, 2: its address}.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from typing import Protocol

from troth.errors import BindingError, DecodeError, LimitExceededError, TrothError
from troth.formats import cbor
from troth.formats.limits import Limits
from troth.tls.core.binding import Proof
from troth.tls.core.messages import MAX_PROOF_OCTETS, RequestParameters

__all__ = [
    "MAX_ADDRESS_OCTETS",
    "NothingToShowError",
    "PayloadUploader",
    "ReferenceResolver",
    "decode_payload",
    "encode_payload",
    "fit_payload",
    "inline_payload",
]

MAX_ADDRESS_OCTETS = 2048

_FORMAT = "attestation payload"
_REFERENCE = "payload reference"
_DIGEST, _ADDRESS = 1, 2
_REFERENCE_LIMITS = Limits(max_bytes=MAX_ADDRESS_OCTETS + 64, max_items=8, max_depth=1)


class NothingToShowError(TrothError):
    """The peer asks for what this side does not have; trying again does not help."""

    code = "declined"


class PayloadUploader(Protocol):
    """Puts a payload where peers can fetch it."""

    async def upload(self, payload: bytes, digest: bytes) -> str:
        """Store `payload`, whose SHA-256 is `digest`, and return its address.

        Raises:
            UnavailableError: the place cannot be reached.
        """
        ...


class ReferenceResolver(Protocol):
    """Fetches what a peer sent by reference.

    The address is the peer's word. An implementation fetches only from places that this side has
    chosen; otherwise a peer can make it call anything that this machine can reach.
    """

    async def fetch(self, address: str, *, max_octets: int) -> bytes:
        """Return what stands at `address`; reading stops after `max_octets`.

        Raises:
            UnavailableError: it cannot be had now.
            DecodeError: not an address that this side fetches from, or too long.
        """
        ...


async def encode_payload(
    payload: bytes,
    wanted: RequestParameters,
    *,
    max_octets: int,
    uploader: PayloadUploader | None = None,
) -> tuple[bytes, str]:
    """Return what to send for `payload`, and the name of its encoding ("" for as it is).

    Args:
        payload: the CMW.
        wanted: what the requester takes.
        max_octets: what the proof's format can hold.
        uploader: for references, if this side can make them.

    Raises:
        NothingToShowError: it is larger than the peer takes, in every way that both sides know.
        UnavailableError: it cannot be uploaded now.
    """
    fitting = fit_payload(payload, wanted, max_octets=max_octets)
    if fitting is not None:
        return fitting
    if wanted.takes_references and uploader is not None and len(payload) <= MAX_PROOF_OCTETS:
        digest = hashlib.sha256(payload).digest()
        address = await uploader.upload(payload, digest)
        return cbor.encode({_DIGEST: digest, _ADDRESS: address}), "reference"
    limit = min(wanted.max_proof_octets, max_octets)
    raise NothingToShowError(
        f"the payload has {len(payload)} octets, the peer takes {limit}",
        remedy="show a passport, or let both sides pass payloads by reference",
    )


def fit_payload(
    payload: bytes, wanted: RequestParameters, *, max_octets: int
) -> tuple[bytes, str] | None:
    """Return what to send for `payload` in the proof itself, or None where it does not fit."""
    limit = min(wanted.max_proof_octets, max_octets)
    if len(payload) <= limit:
        return payload, ""
    if "deflate" in wanted.encodings and len(payload) <= MAX_PROOF_OCTETS:
        squeezed = zlib.compress(payload)
        if len(squeezed) <= limit:
            return squeezed, "deflate"
    return None


async def decode_payload(proof: Proof, resolver: ReferenceResolver | None) -> bytes:
    """Return the CMW that a proof carries, inflated or fetched.

    Raises:
        DecodeError: there is none, it is too large, or its wrapping is damaged.
        BindingError: what was fetched is not what the signed reference names.
        UnavailableError: it cannot be fetched now.
    """
    if proof.encoding == "reference":
        return await _fetch(proof.payload, resolver)
    return inline_payload(proof)


def inline_payload(proof: Proof) -> bytes:
    """Return the CMW of a proof that is not by reference.

    Raises:
        DecodeError: there is none, or its compression is damaged or goes beyond the limit.
    """
    if proof.encoding == "deflate":
        return _inflate(proof.payload)
    if not proof.payload:
        raise DecodeError("the peer proved its key but sent no CMW", format=_FORMAT)
    return proof.payload


async def _fetch(reference: bytes, resolver: ReferenceResolver | None) -> bytes:
    tree = cbor.decode(reference, format=_REFERENCE, limits=_REFERENCE_LIMITS)
    if (
        resolver is None
        or not isinstance(tree, dict)
        or not isinstance(digest := tree.get(_DIGEST), bytes)
        or not isinstance(address := tree.get(_ADDRESS), str)
        or len(address.encode()) > MAX_ADDRESS_OCTETS
    ):
        raise DecodeError("not {1: SHA-256 digest, 2: address}", format=_REFERENCE)
    payload = await resolver.fetch(address, max_octets=MAX_PROOF_OCTETS)
    if len(payload) > MAX_PROOF_OCTETS:
        raise LimitExceededError(format=_FORMAT, limit="octets fetched", value=MAX_PROOF_OCTETS)
    if not hmac.compare_digest(hashlib.sha256(payload).digest(), digest):
        raise BindingError("what the reference led to has another digest")
    return payload


def _inflate(data: bytes) -> bytes:
    machine = zlib.decompressobj()
    try:
        payload = machine.decompress(data, MAX_PROOF_OCTETS)
    except zlib.error as exc:
        raise DecodeError("not a deflate stream", format=_FORMAT) from exc
    if machine.unconsumed_tail:
        raise LimitExceededError(format=_FORMAT, limit="octets inflated", value=MAX_PROOF_OCTETS)
    if not machine.eof:
        raise DecodeError("the deflate stream is not complete", format=_FORMAT)
    if machine.unused_data:
        raise DecodeError("octets follow the deflate stream", format=_FORMAT)
    return payload
