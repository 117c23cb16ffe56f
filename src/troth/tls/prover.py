# SPDX-License-Identifier: Apache-2.0
"""From a peer's request to this side's proof: what to show, and the proof key's signature."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from troth.formats import cmw
from troth.tls.core.binding import ChannelBinding, Request
from troth.tls.core.messages import Model, RequestParameters
from troth.tls.credentials import Credentials, CredentialsSource, current
from troth.tls.judge import EAR_JWT
from troth.tls.payload import NothingToShowError, PayloadUploader, encode_payload, fit_payload

__all__ = ["Prover"]


class Prover:
    """Makes this side's proofs, with the credentials that are current at that moment."""

    def __init__(
        self, credentials: CredentialsSource, *, uploader: PayloadUploader | None = None
    ) -> None:
        """Prepare; `uploader` is for payloads that a peer takes by reference only."""
        self._credentials = credentials
        self._uploader = uploader

    async def prove(self, request: Request, binding: ChannelBinding) -> bytes:
        """Answer the peer's `request`, in the first way it names that this side can.

        Raises:
            NothingToShowError: nothing that this side has is of a kind that the peer takes.
            UnavailableError: the device that would make it does not answer, or it is too large.
            TrothError: any other reason why there is no proof.
        """
        credentials = current(self._credentials)
        payload = await self._payload(credentials, request, binding)
        content, encoding = await encode_payload(
            payload,
            request.parameters,
            max_octets=binding.max_payload_octets,
            uploader=self._uploader,
        )
        pending = binding.begin_proof(request, credentials.proof_chain, content, encoding)
        algorithm, signature = await credentials.sign(pending.to_sign)
        return binding.finish_proof(pending, algorithm, signature)

    def prove_at_once(self, request: Request, binding: ChannelBinding) -> bytes | None:
        """Answer as `prove` would where nothing has to be waited for, or return None.

        That is a passport proved by a key in this process, which most connections show.

        Raises:
            TrothError: there is no proof.
        """
        credentials = current(self._credentials)
        if credentials.proof_key is not None or request.parameters.models[0] is not Model.PASSPORT:
            return None
        passport = credentials.current_passport()
        if not passport:
            return None
        fitting = fit_payload(
            _passport_record(passport), request.parameters, max_octets=binding.max_payload_octets
        )
        if fitting is None:
            return None
        pending = binding.begin_proof(request, credentials.proof_chain, *fitting)
        algorithm, signature = credentials.sign_at_once(pending.to_sign)
        return binding.finish_proof(pending, algorithm, signature)

    @staticmethod
    async def _payload(
        credentials: Credentials, request: Request, binding: ChannelBinding
    ) -> bytes:
        wanted = request.parameters
        for model in wanted.models:
            if model is Model.PASSPORT and (passport := credentials.current_passport()):
                return _passport_record(passport)
            attester = credentials.attester
            if (
                model is Model.BACKGROUND_CHECK
                and attester is not None
                and _takes(wanted, attester.media_type)
            ):
                spki = credentials.proving.spki
                challenge = binding.challenge(request, spki, attester.challenge_size)
                # Drivers of hardware block.
                evidence = await asyncio.to_thread(attester.attest, challenge)
                record = cmw.CmwRecord(attester.media_type, evidence, cmw.Indicator.EVIDENCE)
                return cmw.encode_cbor(record)
        asked = " or ".join(model.value for model in wanted.models)
        raise NothingToShowError(
            f"the peer wants a {asked}, and this side has none",
            remedy="give these credentials a passport or an Attester, or ask the peer for less",
        )


@lru_cache(maxsize=64)
def _passport_record(passport: bytes) -> bytes:
    record = cmw.CmwRecord(EAR_JWT, passport, cmw.Indicator.ATTESTATION_RESULTS)
    return cmw.encode_cbor(record)


def _takes(wanted: RequestParameters, media_type: str) -> bool:
    return not wanted.media_types or media_type in wanted.media_types
