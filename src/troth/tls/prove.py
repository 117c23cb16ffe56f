# SPDX-License-Identifier: Apache-2.0
"""Making a proof for a peer's request: what to show, how to wrap it, and the signature."""

from __future__ import annotations

import asyncio
import zlib

from troth.errors import UnavailableError
from troth.formats import cmw
from troth.tls.core.binding import ChannelBinding, Request
from troth.tls.core.messages import Model
from troth.tls.credentials import Credentials
from troth.tls.judge import EAR_JWT

__all__ = ["make_proof"]

# Below this a payload is not worth compressing; above the other no TLS extension carries it.
_COMPRESS_ABOVE = 4096
_MOST = (1 << 16) - 64


async def make_proof(
    credentials: Credentials, binding: ChannelBinding, request: Request
) -> bytes | None:
    """Return a proof that answers `request`, or None where there is nothing to show.

    Raises:
        UnavailableError: the Attester does not answer, or the payload is larger than the peer takes.
    """
    payload = await _payload(credentials, binding, request)
    if payload is None:
        return None
    content, encoding = _encode(payload, request)
    pending = binding.begin_proof(request, credentials.proof_chain, content, encoding)
    algorithm, signature = await credentials.sign(pending.to_sign)
    return binding.finish_proof(pending, algorithm, signature)


async def _payload(
    credentials: Credentials, binding: ChannelBinding, request: Request
) -> bytes | None:
    for model in request.parameters.models:
        if model is Model.PASSPORT and (passport := credentials.current_passport()):
            record = cmw.CmwRecord(EAR_JWT, passport, cmw.Indicator.ATTESTATION_RESULTS)
            return cmw.encode_cbor(record)
        if model is Model.BACKGROUND_CHECK and (attester := credentials.attester) is not None:
            size = attester.challenge_size
            challenge = binding.challenge(request, credentials.proving.spki, size)
            evidence = await asyncio.to_thread(attester.attest, challenge)
            record = cmw.CmwRecord(attester.media_type, evidence, cmw.Indicator.EVIDENCE)
            return cmw.encode_cbor(record)
    return None


def _encode(payload: bytes, request: Request) -> tuple[bytes, str]:
    """Compress what is large where the peer takes it; refuse what it would not take."""
    parameters = request.parameters
    limit = min(parameters.max_proof_octets, _MOST)
    if len(payload) > _COMPRESS_ABOVE and "deflate" in parameters.encodings:
        squeezed = zlib.compress(payload)
        if len(squeezed) < len(payload) and len(squeezed) <= limit:
            return squeezed, "deflate"
    if len(payload) > limit:
        raise UnavailableError(
            f"the payload has {len(payload)} octets, the peer takes {limit}",
            remedy="show a passport, or let both sides take payloads by reference",
        )
    return payload, ""
