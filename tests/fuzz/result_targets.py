# SPDX-License-Identifier: Apache-2.0
"""The decoders of results and identities under test: one line for each."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from fuzz.harness import Target, files
from support.diag import encode_diag
from support.ears import NOW, plain_ear
from support.x509 import Plan, named, p256, sign, signing
from troth.errors import DecodeError, VerificationError
from troth.formats.ear import PROFILES, Dialect, decode_ear, encode_ear, sign_ear, verify_ear
from troth.formats.jose import verify_jwt
from troth.formats.keys import VerificationKey, spki
from troth.formats.signer import LocalSigner
from troth.identity.attestation_result import attestation_result, result_extension
from troth.identity.certificate_request import decode_csr
from troth.identity.selector import Selector
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import (
    TrustBundle,
    TrustBundleSet,
    decode_bundle_map,
    encode_bundle_map,
)
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid

_DOMAIN = TrustDomain("example.org")
_SIGNER = LocalSigner(p256(), "verifier-1")
_KEYS = [VerificationKey(_SIGNER.public_key)]
_NODE, _ROOT, _ISSUER = Plan(units=("node:edge-1",)), signing(), signing(subject="issuer")
_EAR = plain_ear(spki(_NODE.key.public_key()), nonce=b"12345678")
_JWT, _CWT = (sign_ear(_EAR, _SIGNER, Dialect.IETF_03, wire=wire) for wire in ("jwt", "cwt"))
_BUNDLE = TrustBundle(
    trust_domain=_DOMAIN,
    x509_authorities=[sign(_ROOT)],
    jwt_authorities=[VerificationKey(_SIGNER.public_key, "jwt-1")],
    sequence=1,
    refresh_hint_seconds=60,
)
_LEAF = replace(_NODE, more=[(result_extension(_JWT), False)])
_CHAIN = X509Svid(chain=[sign(_LEAF, _ISSUER), sign(_ISSUER, _ROOT)])
_REQUEST = (
    x509.CertificateSigningRequestBuilder()
    .subject_name(named("x"))
    .sign(_NODE.key, hashes.SHA256())
)
_JSON_EARS = [
    *(encode_ear(_EAR, dialect) for dialect in Dialect),
    *files("ear/draft-03/*json*.diag"),
    *files("ear/*/ear-claims*.json"),
    *files("ear/trustee/*.json"),
]
_CBOR_EARS = [
    encode_ear(_EAR, Dialect.IETF_03, wire="cbor"),
    *(encode_diag(text.decode()) for text in files("ear/draft-03/*cbor*.diag")),
]


def _verify(token: bytes) -> object:
    return verify_ear(
        token,
        _KEYS,
        now=NOW,
        max_age=timedelta(hours=1),
        leeway=timedelta(0),
        profiles=PROFILES,
        require_key=True,
        require_exp=True,
    )


def _reencode(data: bytes, wire: str) -> object:
    """What decodes can be written again in the same encoding and dialect."""
    ear = decode_ear(data, wire=wire)
    again = encode_ear(ear, PROFILES[ear.profile], wire=wire)
    assert decode_ear(again, wire=wire).submods == ear.submods
    return again


def _text(decode: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: decode(data.decode("latin-1"))


def _quietly(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Leave out cryptography's warnings about serial numbers that RFC 5280 forbids."""

    def quiet(data: bytes) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            return decode(data)

    return quiet


def _svid(data: bytes) -> object:
    svid = X509Svid.decode(data)
    return svid.node_id, attestation_result(svid), X509Svid.decode(svid.encode_pem())


def _path(data: bytes) -> object:
    return verify_x509_svid(X509Svid.decode(data), TrustBundleSet([_BUNDLE]), now=NOW)


_REFUSALS = (DecodeError, VerificationError)
_CHAINS = [_CHAIN.encode_der(), _CHAIN.encode_pem(), sign(_NODE, _ROOT).public_bytes(Encoding.DER)]

RESULT_TARGETS = [
    Target("jwt", lambda data: verify_jwt(data, _KEYS), [_JWT, *files("ear/*/*.jwt")], _REFUSALS),
    Target("ear-json", lambda data: _reencode(data, "json"), _JSON_EARS),
    Target("ear-cbor", lambda data: _reencode(data, "cbor"), _CBOR_EARS),
    Target("ear-token", _verify, [_JWT, _CWT, *files("ear/*/*.jwt")], _REFUSALS),
    Target("spiffe-id", _text(SpiffeId.decode), [b"spiffe://example.org/ns/prod/sa/web_1.0-a"]),
    Target("selector", _text(Selector.decode), [b"k8s:ns:default"]),
    Target(
        "bundle",
        _quietly(lambda data: TrustBundle.decode(data, trust_domain=_DOMAIN).encode()),
        [_BUNDLE.encode(), json.dumps({"keys": []}).encode()],
    ),
    Target("bundle-map", _quietly(decode_bundle_map), [encode_bundle_map([_BUNDLE])]),
    Target("x509-svid", _quietly(_svid), _CHAINS),
    Target("x509-path", _quietly(_path), _CHAINS, _REFUSALS),
    Target(
        "csr",
        _quietly(decode_csr),
        [_REQUEST.public_bytes(Encoding.DER), _REQUEST.public_bytes(Encoding.PEM)],
        _REFUSALS,
    ),
]
