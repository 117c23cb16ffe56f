# SPDX-License-Identifier: Apache-2.0
"""A caller judged by the certificate that it showed in TLS, and by nothing else.

What this proves is the binding `credential`: a Verifier said something about the key in that
certificate, at the time it says. There is no nonce of ours in it, and whoever took the key out of
its machine passes until the result ends or the server withdraws the node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from troth.errors import BindingError, DecodeError, LimitExceededError, TrothError
from troth.identity.svid_verifier import SvidVerifier
from troth.identity.trust_bundle import TrustBundleSource
from troth.tls.judge import Judge
from troth.tls.peer import AttestedPeer, ChannelPeer

__all__ = ["MAX_CERTIFICATE_BYTES", "CallerDecision", "CertificateJudge"]

MAX_CERTIFICATE_BYTES: Final = 64 * 1024
"""Longest certificate in PEM that is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerDecision:
    """What became of one caller.

    Attributes:
        admitted: whether it may connect.
        why: for operators where it may not, or where it may only because the mode is permissive.
        peer: as it was judged; None where it could not be.
    """

    admitted: bool
    why: str = ""
    peer: AttestedPeer | None = None

    @property
    def status(self) -> str:
        """What the access log shows: "attested", or "none" for a caller let in without a result."""
        return "attested" if self.admitted and not self.why else "none"


class CertificateJudge:
    """Judges callers.

    Args:
        bundles: whom to believe. Envoy has verified the certificate; it is verified again here,
            which needs its issuer in the bundle: Envoy gives the leaf alone.
        find: gives what is demanded of a SPIFFE ID; None refuses.
        veto: says why the holder of a key must be refused whatever its certificate says, or "".
            It is told the key's SHA-256, the SPIFFE ID, and whether a result is in the certificate.
        permissive: let callers without any result in, marked. For migration only.
    """

    def __init__(
        self,
        bundles: TrustBundleSource,
        *,
        find: Callable[[str], Judge | None],
        veto: Callable[[bytes, str, bool], str] = lambda _digest, _spiffe_id, _result: "",
        permissive: bool = False,
    ) -> None:
        self._svids = SvidVerifier(bundles)
        self._find, self._veto = find, veto
        self._permissive = permissive

    def judge(self, certificate: bytes, *, principal: str, now: datetime) -> CallerDecision:
        """Decide on a caller.

        Args:
            certificate: PEM, as Envoy passes it; b"" where it passes none.
            principal: whom Envoy took it for, or "".
            now: aware UTC.
        """
        try:
            return self._judge(certificate, principal, now)
        except TrothError as exc:
            remedy = f" ({exc.remedy})" if exc.remedy else ""
            return CallerDecision(admitted=False, why=f"{exc}{remedy}")

    def _judge(self, certificate: bytes, principal: str, now: datetime) -> CallerDecision:
        chain = [_decode(certificate)]
        shown = self._svids.verify(chain, now=now)
        name = str(shown.spiffe_id)
        if principal and principal != name:
            raise BindingError(f"Envoy took the caller for {principal}, its certificate is {name}")
        judge = self._find(name)
        if judge is None:
            return CallerDecision(admitted=False, why=f"no rule of this node is about {name}")
        veto = self._veto(shown.key_digest, name, shown.token is not None)
        if veto:
            return CallerDecision(admitted=False, why=veto)
        known: ChannelPeer = judge.identify(chain, now=now)
        peer = judge.judge_identity(known, now=now)
        if peer.decision.admitted:
            return CallerDecision(admitted=True, peer=peer)
        why = "; ".join(str(objection) for objection in peer.decision.objections)
        lenient = self._permissive and shown.token is None
        return CallerDecision(admitted=lenient, why=why or "refused by policy", peer=peer)


def _decode(certificate: bytes) -> bytes:
    if not certificate:
        raise BindingError(
            "Envoy passes no certificate of the caller",
            remedy="set include_peer_certificate: true in ext_authz, and require_client_certificate",
        )
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise LimitExceededError(
            format="certificate", limit="MAX_CERTIFICATE_BYTES", value=MAX_CERTIFICATE_BYTES
        )
    try:
        return x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError("not a certificate in PEM", format="certificate") from exc
