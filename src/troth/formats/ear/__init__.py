# SPDX-License-Identifier: Apache-2.0
"""EAR, the EAT Attestation Result: three dialects in and out, JSON and CBOR, JWT and CWT.

    token = sign_ear(ear, signer, Dialect.IETF_03, wire="jwt")
    ear = verify_ear(token, keys, now=now, max_age=timedelta(hours=1), leeway=timedelta(seconds=30),
                     profiles=PROFILES, require_key=True, require_exp=True)
    if ear.overall_status is not TrustTier.AFFIRMING: ...

Source: draft-ietf-rats-ear-03, -02; the deployed Veraison and Trustee form.
"""

from troth.formats.ear.codec import decode_ear, encode_ear
from troth.formats.ear.dialects import PROFILES, Dialect
from troth.formats.ear.result import PROFILE_IETF_03, Ear, EarSubmod, VerifierId, minimise
from troth.formats.ear.token import sign_ear, verify_ear
from troth.formats.ear.troth_claims import TrothClaims

__all__ = [
    "PROFILES",
    "PROFILE_IETF_03",
    "Dialect",
    "Ear",
    "EarSubmod",
    "TrothClaims",
    "VerifierId",
    "decode_ear",
    "encode_ear",
    "minimise",
    "sign_ear",
    "verify_ear",
]
