# SPDX-License-Identifier: Apache-2.0
"""What one end has to show: its SVID, its Attestation Result, its Attester, its proof key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.hazmat.primitives import serialization

from troth.errors import ApiMisuseError
from troth.evidence.attester import Attester
from troth.formats.signer import LocalSigner
from troth.identity.attestation_result import attestation_result
from troth.identity.trust_bundle import TrustBundleSource
from troth.identity.x509_svid import X509Svid
from troth.tls.core.messages import PROOF_ALGORITHMS

__all__ = ["Credentials", "CredentialsSource", "ProofKey", "ProofSigner", "current"]


class ProofSigner(Protocol):
    """Signs with the proof key; may take its time (a TPM, a KMS, an enclave)."""

    @property
    def algorithm(self) -> str:
        """JOSE name of the algorithm: ES256, ES384, EdDSA or PS256."""
        ...

    def __call__(self, data: bytes) -> Awaitable[bytes]:
        """Return the signature over `data` in JOSE form (r||s for ECDSA)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofKey:
    """A key that is not the TLS key: held in hardware, certified for the same SPIFFE ID.

    A policy that wants a separate key believes only the authority about it: the certificate
    carries the mark of `troth.identity.hardware_key`.

    Attributes:
        svid: its certificate chain; an X.509-SVID with the TLS certificate's SPIFFE ID.
        sign: its signer.
    """

    svid: X509Svid
    sign: ProofSigner


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Everything one end needs to be recognised, and to recognise others.

    Attributes:
        svid: the X.509-SVID for TLS, with its private key.
        bundles: the authorities of each trust domain that peers may come from.
        passport: the Attestation Result to show, as text, or a call that gives the newest one;
            by default the one inside the proof key's certificate.
        attester: makes fresh Evidence for background checks, or None to decline those.
        proof_key: a separate key to prove with; by default the TLS key proves.

    Raises:
        ApiMisuseError: the SVID lacks its private key, or the proof key has another SPIFFE ID.
    """

    svid: X509Svid
    bundles: TrustBundleSource
    passport: str | Callable[[], str] = ""
    attester: Attester | None = None
    proof_key: ProofKey | None = field(default=None)
    _signer: LocalSigner = field(init=False, repr=False, compare=False)
    _proof_chain: Sequence[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.svid.private_key is None:
            raise ApiMisuseError("an SVID without its private key cannot open a connection")
        if self.proof_key is not None and self.proof_key.svid.spiffe_id != self.svid.spiffe_id:
            raise ApiMisuseError("the proof key is certified for another SPIFFE ID")
        object.__setattr__(self, "_signer", LocalSigner(self.svid.private_key))
        chain = [each.public_bytes(serialization.Encoding.DER) for each in self.proving.chain]
        object.__setattr__(self, "_proof_chain", tuple(chain))
        if self.proof_key is None and self._signer.algorithm not in PROOF_ALGORITHMS:
            raise ApiMisuseError(
                f"a key for {self._signer.algorithm} cannot prove",
                remedy=f"use one for {', '.join(sorted(PROOF_ALGORITHMS))}: P-256 is the usual choice",
            )

    @property
    def proving(self) -> X509Svid:
        """The SVID whose key proves."""
        return self.proof_key.svid if self.proof_key is not None else self.svid

    @property
    def proof_chain(self) -> Sequence[bytes]:
        """The proving certificate chain as DER, leaf first."""
        return self._proof_chain

    def current_passport(self) -> bytes:
        """Return the Attestation Result to show, or b"" where there is none."""
        given = self.passport() if callable(self.passport) else self.passport
        return given.encode() if given else attestation_result(self.proving) or b""

    async def sign(self, data: bytes) -> tuple[str, bytes]:
        """Sign with the proof key; return the algorithm and the signature."""
        if self.proof_key is not None:
            signer = self.proof_key.sign
            return signer.algorithm, await signer(data)
        return self.sign_at_once(data)

    def sign_at_once(self, data: bytes) -> tuple[str, bytes]:
        """Sign with the TLS key, which proves where there is no separate key.

        Raises:
            ApiMisuseError: there is a separate key.
        """
        if self.proof_key is not None:
            raise ApiMisuseError("the separate key signs, and that may take its time")
        return self._signer.algorithm, self._signer.sign(data)


CredentialsSource = Credentials | Callable[[], Credentials]
"""One end's credentials, or a call that gives the newest: SVIDs and results live for an hour."""


def current(source: CredentialsSource) -> Credentials:
    """Return the credentials to use now."""
    return source() if callable(source) else source
