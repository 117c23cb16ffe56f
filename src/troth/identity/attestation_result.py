# SPDX-License-Identifier: Apache-2.0
"""The Attestation Result that an X.509-SVID carries, in a non-critical id-pe-cmw extension.

The extension is covered by the certificate's signature, but what it says is the Verifier's word and
not the authority's: both signatures are checked, each under its own keys.

Source: RFC 9999 section 4.4 (id-pe-cmw, 1.3.6.1.5.5.7.1.35); draft-ietf-rats-ear-03.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from troth.errors import BindingError, UnsupportedError
from troth.formats.cmw import (
    CMW_OID,
    CmwRecord,
    Indicator,
    encode_extension,
    from_certificate,
)
from troth.formats.ear import PROFILES, Ear, verify_ear
from troth.formats.keys import VerificationKey
from troth.formats.media_type import parse_media_type
from troth.identity.certificates import FORMAT
from troth.identity.x509_path import VerifiedX509Svid
from troth.identity.x509_svid import X509Svid

__all__ = ["attestation_result", "result_extension", "verify_attestation_result"]

_EAT_JWT: Final = "application/eat+jwt"
_RESULT_TYPES: Final = frozenset({_EAT_JWT, "application/eat+cwt"})


def result_extension(token: bytes) -> x509.UnrecognizedExtension:
    """Return the extension that carries an EAR JWT; add it as non-critical."""
    record = CmwRecord(_EAT_JWT, token, Indicator.ATTESTATION_RESULTS)
    return x509.UnrecognizedExtension(CMW_OID, encode_extension(record))


def attestation_result(svid: X509Svid) -> bytes | None:
    """Return the EAR token (JWT or CWT) that the SVID carries, or None where it carries none.

    Checks nothing of the token: see `verify_attestation_result`.

    Raises:
        DecodeError: the extension is there and malformed.
        UnsupportedError: it holds a result in a form that Troth does not read.
    """
    cmw = from_certificate(svid.leaf)
    if cmw is None:
        return None
    if not isinstance(cmw, CmwRecord):
        raise UnsupportedError("id-pe-cmw holds a collection, not one record", format=FORMAT)
    if cmw.indicator and Indicator.ATTESTATION_RESULTS not in cmw.indicator:
        return None  # Evidence or another message, which is not ours to read here
    kind = parse_media_type(cmw.media_type).name if cmw.media_type else ""
    if kind not in _RESULT_TYPES:
        raise UnsupportedError(
            f"id-pe-cmw holds {kind or cmw.type!r:.64}, not an EAT Attestation Result",
            format=FORMAT,
        )
    return cmw.value


def verify_attestation_result(
    verified: VerifiedX509Svid,
    result_keys: Sequence[VerificationKey],
    *,
    now: datetime,
    max_age: timedelta,
    leeway: timedelta,
    profiles: Collection[str] = tuple(PROFILES),
) -> Ear:
    """Return the result that a trusted Verifier gave for the very key in this SVID.

    Binding: `credential`. It is as fresh as the certificate, no fresher; and what it says is not
    weighed here, see `Ear.overall_status`.

    Args:
        verified: the SVID, its path verified.
        result_keys: the Verifiers' public keys.
        now: timezone-aware.
        max_age: how long ago the result may have been issued.
        leeway: how far the clocks may be apart.
        profiles: accepted EAR profiles.

    Raises:
        BindingError: the SVID carries no result, or one for another key.
        SignatureError, FreshnessError, DecodeError: as `verify_ear`.
    """
    token = attestation_result(verified.svid)
    if token is None:
        raise BindingError(f"{verified.svid.spiffe_id}: the SVID carries no Attestation Result")
    ear = verify_ear(
        token,
        result_keys,
        now=now,
        max_age=max_age,
        leeway=leeway,
        profiles=profiles,
        require_key=True,
        require_exp=True,
    )
    if ear.keys != (verified.svid.spki,):
        raise BindingError(
            f"{verified.svid.spiffe_id}: the Attestation Result is for another key than the SVID's"
        )
    return ear
