# SPDX-License-Identifier: Apache-2.0
"""What an SVID of a workload may say about the machine under it, and about who says so.

The Evidence of a node vouches for the node's key. No hardware has seen the key of a workload: the
node's agent made it, after it had looked at the process. So a workload's Attestation Result is one
of layers (RFC 9334 section 3.2): what was appraised of the node stands there as it was, without
its key; and one more appraisal, `workload`, names the workload's key and says that the *node
agent* vouches for it. The result as a whole says layer "node_agent" and component "workload", has
the age, the end and the tier of the node's, and cannot be better than it.

See docs/adr/0010-results-of-workloads.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from troth.errors import AuthorizationError, BindingError, FreshnessError
from troth.formats.ar4si import TrustTier
from troth.formats.base64url import encode_base64url
from troth.formats.ear import PROFILES, Dialect, Ear, EarSubmod, TrothClaims, minimise, verify_ear
from troth.formats.ear.codec import ear_claims
from troth.formats.jose import sign_jwt
from troth.formats.keys import VerificationKey
from troth.formats.signer import Signer

__all__ = ["WORKLOAD_LAYER", "WORKLOAD_SUBMOD", "NodeResult", "workload_result"]

WORKLOAD_SUBMOD: Final = "workload"
WORKLOAD_LAYER: Final = "node_agent"

_LEEWAY: Final = timedelta(seconds=30)
_AKPUB: Final = "akpub"


def workload_result(node: Ear, *, key: bytes) -> Ear:
    """Return the result of a workload with the key `key` (DER SPKI) on the node of `node`.

    Checks nothing; unsigned. Age and end are the node's: nothing was appraised anew.
    """
    minimised = minimise(node)
    submods = {label: replace(submod, key=None) for label, submod in minimised.submods.items()}
    submods[WORKLOAD_SUBMOD] = EarSubmod(
        status=node.overall_status,
        key=key,
        troth=TrothClaims(component=WORKLOAD_SUBMOD, layer=WORKLOAD_LAYER),
    )
    troth = replace(minimised.troth, component=WORKLOAD_SUBMOD, layer=WORKLOAD_LAYER)
    return replace(minimised, submods=submods, troth=troth)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeResult:
    """A node's result that allows SVIDs for its workloads. Only `verify` makes one.

    Attributes:
        ear: the node's result, as a trusted Verifier signed it.
        node_id: the node.
        expires_at: when it ends.
        signer: the Verifier's key, which signs the workloads' results too.
    """

    ear: Ear
    node_id: str
    expires_at: datetime
    signer: Signer = field(repr=False)
    _claims: dict[str, Any] = field(repr=False)

    @classmethod
    def verify(
        cls,
        token: str,
        result_keys: Sequence[VerificationKey],
        *,
        node_id: str,
        signer: Signer,
        now: datetime,
        max_age: timedelta,
        allow_insecure: bool = False,
    ) -> NodeResult:
        """Verify the minimised result of a node, once for all SVIDs that stand on it.

        Args:
            token: EAR as JWT.
            result_keys: the Verifiers whose results make members.
            node_id: the node that it is about: the registry knows, the result does not.
            signer: signs the workloads' results.
            now: timezone-aware.
            max_age: how long ago it may have been issued.
            allow_insecure: also on results that must not count in production.

        Raises:
            AuthorizationError: not affirming, without end, or insecure.
            BindingError: it does not vouch for exactly one key.
            SignatureError, FreshnessError, DecodeError: the result does not hold.
        """
        ear = verify_ear(
            token,
            result_keys,
            now=now,
            max_age=max_age,
            leeway=_LEEWAY,
            profiles=PROFILES,
            require_key=True,
            require_exp=True,
        )
        if ear.overall_status is not TrustTier.AFFIRMING or ear.expires_at is None:
            raise AuthorizationError(
                f"node {node_id}: the Attestation Result is {ear.overall_status.word}",
                result=ear,
                remedy="read the result's findings",
            )
        if ear.insecure and not allow_insecure:
            raise AuthorizationError(
                f"node {node_id}: the Attestation Result must not count in production: "
                f"{'; '.join(ear.insecure)}",
                result=ear,
            )
        if ear.expires_at <= now:
            raise FreshnessError(f"node {node_id}: the Attestation Result has ended")
        if WORKLOAD_SUBMOD in ear.submods:
            raise BindingError(f"node {node_id}: its result is that of a workload already")
        claims = ear_claims(workload_result(ear, key=ear.keys[0]), Dialect.IETF_03)
        return cls(
            ear=ear,
            node_id=node_id,
            expires_at=ear.expires_at,
            signer=signer,
            _claims={str(label): value for label, value in claims.items()},
        )

    def sign_for(self, key: bytes) -> bytes:
        """Return the signed result (EAR as JWT) of a workload with the key `key` (DER SPKI)."""
        # The same claims as `workload_result` gives, with the one that differs put in: the rest
        # is encoded once for a node and not for each of its workloads.
        submods = dict(self._claims["submods"])
        submods[WORKLOAD_SUBMOD] = {
            name: {_AKPUB: encode_base64url(key)}
            if isinstance(value, dict) and _AKPUB in value
            else value
            for name, value in submods[WORKLOAD_SUBMOD].items()
        }
        claims = self._claims | {"submods": submods}
        header = {"typ": Dialect.IETF_03.jwt_type}
        return sign_jwt(claims, self.signer, header=header).encode("ascii")
