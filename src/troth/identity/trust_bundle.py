# SPDX-License-Identifier: Apache-2.0
"""The keys that are authoritative for one trust domain, and where to find them.

A bundle is used for the SVIDs of its own trust domain and for no others; bundles are never merged.

Source: SPIFFE Trust Domain and Bundle sections 4 and 5; X509-SVID section 6; JWT-SVID section 6
(spiffe/spiffe, July 2026).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from troth.errors import ApiMisuseError, DecodeError, LimitExceededError, UnsupportedError
from troth.formats.jwk import decode_jwk, required_members
from troth.formats.keys import VerificationKey, spki
from troth.formats.limits import Limits
from troth.formats.strict_json import decode_json_object, encode_json
from troth.formats.verification_key import PublicKey, supported_public_key
from troth.identity.spiffe_id import TrustDomain

__all__ = [
    "BUNDLE_LIMITS",
    "MAX_AUTHORITIES",
    "TrustBundle",
    "TrustBundleSet",
    "TrustBundleSource",
    "decode_bundle_map",
    "encode_bundle_map",
]

BUNDLE_LIMITS: Final = Limits(max_bytes=1 << 18, max_items=4096, max_depth=8)
"""What decoding a bundle, or a map of bundles, may cost."""

MAX_AUTHORITIES: Final = 64
"""Keys of one kind in a bundle; path building may try each."""

_FORMAT: Final = "SPIFFE bundle"
_X509_USE: Final = "x509-svid"
_JWT_USE: Final = "jwt-svid"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustBundle:
    """The keys of one trust domain. Without any, every SVID of that trust domain is invalid.

    Attributes:
        trust_domain: whose keys; the encoded bundle does not say it, the configuration does.
        x509_authorities: CA certificates, each once.
        jwt_authorities: keys for JWT-SVIDs, each with a `key_id` of its own.
        sequence: grows with every change, or None.
        refresh_hint_seconds: how often to look for changes, or None.

    Raises:
        DecodeError: more keys than allowed, an authority of an unsupported type, a JWT key without
            `key_id` or two with the same.
    """

    trust_domain: TrustDomain
    x509_authorities: Sequence[x509.Certificate] = ()
    jwt_authorities: Sequence[VerificationKey] = ()
    sequence: int | None = None
    refresh_hint_seconds: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "x509_authorities", tuple(dict.fromkeys(self.x509_authorities)))
        object.__setattr__(self, "jwt_authorities", tuple(self.jwt_authorities))
        for authorities in (self.x509_authorities, self.jwt_authorities):
            if len(authorities) > MAX_AUTHORITIES:
                raise LimitExceededError(
                    format=_FORMAT, limit="max_authorities", value=MAX_AUTHORITIES
                )
        if any(isinstance(key.material, bytes) for key in self.jwt_authorities):
            raise DecodeError("a symmetric key is no authority", format=_FORMAT)
        names = [key.key_id for key in self.jwt_authorities]
        if "" in names or len(set(names)) != len(names):
            raise DecodeError(f"{_JWT_USE} keys need a kid of their own each", format=_FORMAT)
        for number in (self.sequence, self.refresh_hint_seconds):
            if number is not None and (type(number) is not int or not 0 <= number < 1 << 63):
                raise DecodeError(f"{number!r:.32} is not a count of 63 bits", format=_FORMAT)

    @classmethod
    def decode(
        cls, data: bytes, *, trust_domain: TrustDomain, limits: Limits = BUNDLE_LIMITS
    ) -> TrustBundle:
        """Decode a bundle that was fetched as that of `trust_domain`.

        Says nothing about who served it: that is the transport's to authenticate. Elements of
        unknown use or key type are left out, as the specification wants.

        Raises:
            DecodeError: not a bundle, or an element of known use that is malformed.
        """
        value = decode_json_object(data, format=_FORMAT, limits=limits)
        return _from_value(value, trust_domain)

    def encode(self) -> bytes:
        """Encode as a JWK Set, reproducibly."""
        return encode_json(_to_value(self))

    def encode_pem(self) -> bytes:
        """Return the X.509 authorities as concatenated PEM, for Envoy and other TLS stacks."""
        return b"".join(cert.public_bytes(Encoding.PEM) for cert in self.x509_authorities)


class TrustBundleSource(Protocol):
    """Where a validator finds bundles. No bundle means that the trust domain is not trusted."""

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """Return the bundle of exactly this trust domain, or None."""
        ...


class TrustBundleSet(Mapping[TrustDomain, TrustBundle]):
    """Bundles that are at hand, at most one for each trust domain."""

    def __init__(self, bundles: Iterable[TrustBundle] = ()) -> None:
        """Take the bundles.

        Raises:
            ApiMisuseError: two of the same trust domain; they must not be merged.
        """
        found: dict[TrustDomain, TrustBundle] = {}
        for bundle in bundles:
            if bundle.trust_domain in found:
                raise ApiMisuseError(f"two bundles for trust domain {bundle.trust_domain}")
            found[bundle.trust_domain] = bundle
        self._bundles = MappingProxyType(found)

    def __getitem__(self, trust_domain: TrustDomain) -> TrustBundle:
        return self._bundles[trust_domain]

    def __iter__(self) -> Iterator[TrustDomain]:
        return iter(self._bundles)

    def __len__(self) -> int:
        return len(self._bundles)

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle | None:
        """Return the bundle of exactly this trust domain, or None."""
        return self._bundles.get(trust_domain)


def decode_bundle_map(data: bytes, *, limits: Limits = BUNDLE_LIMITS) -> TrustBundleSet:
    """Decode a SPIFFE Bundle Map: {"trust_domains": {name: bundle}}.

    Raises:
        DecodeError: not a map of bundles, or a trust domain occurs twice.
    """
    value = decode_json_object(data, format="SPIFFE bundle map", limits=limits)
    bundles = value.get("trust_domains")
    if not isinstance(bundles, dict):
        raise DecodeError("has no object trust_domains", format="SPIFFE bundle map")
    return TrustBundleSet(_from_value(item, TrustDomain(name)) for name, item in bundles.items())


def encode_bundle_map(bundles: Iterable[TrustBundle]) -> bytes:
    """Encode a SPIFFE Bundle Map; refresh hints are for single bundles and are left out."""
    names = {
        bundle.trust_domain.name: {
            name: item for name, item in _to_value(bundle).items() if name != "spiffe_refresh_hint"
        }
        for bundle in TrustBundleSet(bundles).values()
    }
    return encode_json({"trust_domains": names})


def _from_value(value: object, trust_domain: TrustDomain) -> TrustBundle:
    if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
        raise DecodeError("is not an object with an array of keys", format=_FORMAT)
    certificates: list[x509.Certificate] = []
    keys: list[VerificationKey] = []
    for at, element in enumerate(value["keys"]):
        where = f"{_FORMAT} key {at}"
        if not isinstance(element, dict) or not isinstance(element.get("kty"), str):
            raise DecodeError("is not an object with a kty", format=where)
        try:
            if element.get("use") == _X509_USE:
                certificates.extend(_certificate(element, where))
            elif element.get("use") == _JWT_USE:
                keys.append(decode_jwk(element, format=where))
        except UnsupportedError:
            continue  # "Clients encountering an unknown key type MUST ignore the entire JWK"
    return TrustBundle(
        trust_domain=trust_domain,
        x509_authorities=certificates,
        jwt_authorities=keys,
        sequence=value.get("spiffe_sequence"),
        refresh_hint_seconds=value.get("spiffe_refresh_hint"),
    )


def _certificate(element: Mapping[str, object], where: str) -> Sequence[x509.Certificate]:
    """Return the CA certificate of an `x509-svid` element, or nothing where it has none."""
    chain = element.get("x5c", [])
    if not isinstance(chain, list):
        raise DecodeError("x5c is not an array", format=where)
    if not chain:
        return ()
    if not isinstance(chain[0], str):
        raise DecodeError("x5c holds something else than text", format=where)
    try:
        der = base64.b64decode(chain[0], validate=True)
        certificate = x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError("x5c does not begin with a certificate", format=where) from exc
    stated = decode_jwk(element, format=where).material
    # RFC 7517 section 4.7: the key in the first certificate MUST match the one in the JWK.
    if isinstance(stated, bytes) or spki(stated) != spki(_public_key(certificate)):
        raise DecodeError("the key is not the one in the certificate", format=where)
    return (certificate,)


def _public_key(certificate: x509.Certificate) -> PublicKey:
    try:
        return supported_public_key(certificate.public_key(), format=_FORMAT)
    except UnsupportedAlgorithm as exc:
        raise UnsupportedError("a certificate's key is of an unknown type", format=_FORMAT) from exc
    except ValueError as exc:
        raise DecodeError("a certificate's key cannot be read", format=_FORMAT) from exc


def _to_value(bundle: TrustBundle) -> dict[str, object]:
    keys: list[dict[str, object]] = [
        {
            **required_members(_public_key(certificate)),
            "use": _X509_USE,
            "x5c": [base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii")],
        }
        for certificate in bundle.x509_authorities
    ]
    keys.extend(
        {**required_members(key.material), "use": _JWT_USE, "kid": key.key_id}
        for key in bundle.jwt_authorities
    )
    value: dict[str, object] = {"keys": keys}
    if bundle.sequence is not None:
        value["spiffe_sequence"] = bundle.sequence
    if bundle.refresh_hint_seconds is not None:
        value["spiffe_refresh_hint"] = bundle.refresh_hint_seconds
    return value
