# SPDX-License-Identifier: Apache-2.0
"""Exported Authenticators: requests, authenticators, and the attestation extension in them.

An authenticator proves, on an established TLS 1.3 connection, possession of a certificate's key
for that very connection. Its keys come from the connection's exporter, which the caller passes in;
this module does no I/O and never sees the TLS stack. It does not judge the certificate chain
(`troth.identity`) nor the attestation data (`troth.verifier`).

Source: RFC 9261 sections 4, 5 and 7; RFC 8446 sections 4.2.3, 4.4; the extension is that of
draft-fossati-seat-expat-03 section "cmw_attestation".
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from troth.errors import DecodeError, PeerError, SignatureError
from troth.formats.tls_wire import WireReader, handshake_message, vector

__all__ = [
    "Authenticator",
    "AuthenticatorKeys",
    "AuthenticatorRequest",
    "Role",
    "SignatureScheme",
    "certificate_message",
    "certificate_verify_input",
    "decode_request",
    "empty_authenticator",
    "encode_request",
    "exporter_labels",
    "finish_authenticator",
    "is_empty",
    "make_request",
    "validate_authenticator",
]

_CERTIFICATE, _CERTIFICATE_REQUEST, _CERTIFICATE_VERIFY = 11, 13, 15
_CLIENT_CERTIFICATE_REQUEST, _FINISHED = 17, 20
_SIGNATURE_ALGORITHMS = 13

MAX_AUTHENTICATOR_OCTETS = 1 << 18
MAX_REQUEST_OCTETS = 1 << 16
MAX_CHAIN_CERTIFICATES = 10

_FORMAT = "Exported Authenticator"


class Role(enum.Enum):
    """An end of the TLS connection."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> Role:
        """The peer's role."""
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


class SignatureScheme(enum.IntEnum):
    """TLS 1.3 signature schemes that Troth offers and takes (RFC 8446 section 4.2.3)."""

    ECDSA_SECP256R1_SHA256 = 0x0403
    ECDSA_SECP384R1_SHA384 = 0x0503
    ED25519 = 0x0807
    RSA_PSS_RSAE_SHA256 = 0x0804


def exporter_labels(sender: Role) -> tuple[str, str]:
    """Return the exporter labels for an authenticator that `sender` sends.

    The first gives the handshake context, the second the Finished MAC key. Both are called with
    an empty context and the length of the cipher suite's hash (RFC 9261 section 5.1).
    """
    return (
        f"EXPORTER-{sender.value} authenticator handshake context",
        f"EXPORTER-{sender.value} authenticator finished key",
    )


@dataclass(frozen=True, slots=True)
class AuthenticatorKeys:
    """What the exporter gave for one sender.

    Attributes:
        handshake_context: value of the first label.
        finished_key: value of the second label.
        hash_name: hash of the cipher suite, "sha256" or "sha384".
    """

    handshake_context: bytes = field(repr=False)
    finished_key: bytes = field(repr=False)
    hash_name: str

    def digest(self, *parts: bytes) -> bytes:
        """Hash the concatenation of `parts` with the cipher suite's hash."""
        return hashlib.new(self.hash_name, b"".join(parts)).digest()

    def finished(self, transcript: bytes) -> bytes:
        """Return the Finished MAC over `transcript`."""
        return hmac.digest(self.finished_key, transcript, self.hash_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticatorRequest:
    """A decoded request.

    Attributes:
        context: certificate_request_context: unique on the connection, unpredictable.
        signature_schemes: code points the requester accepts, unknown ones included.
        extensions: extension type to body, `signature_algorithms` excluded.
        raw: the whole handshake message, which the transcript covers.
    """

    context: bytes
    signature_schemes: Sequence[int]
    extensions: Mapping[int, bytes]
    raw: bytes = field(repr=False)


def make_request(
    requester: Role,
    *,
    context: bytes,
    signature_schemes: Sequence[SignatureScheme],
    extensions: Mapping[int, bytes],
) -> AuthenticatorRequest:
    """Return a request made by `requester`: type 17 from a client, 13 from a server."""
    kind = _CLIENT_CERTIFICATE_REQUEST if requester is Role.CLIENT else _CERTIFICATE_REQUEST
    block = _request_block(tuple(signature_schemes), tuple(extensions.items()))
    return AuthenticatorRequest(
        context=context,
        signature_schemes=tuple(signature_schemes),
        extensions=extensions,
        raw=handshake_message(kind, vector(context, 1) + block),
    )


# One requester asks for the same thing on every connection, with another context.
@lru_cache(maxsize=64)
def _request_block(
    schemes: tuple[SignatureScheme, ...], extensions: tuple[tuple[int, bytes], ...]
) -> bytes:
    listing = vector(b"".join(scheme.to_bytes(2, "big") for scheme in schemes), 2)
    body = _SIGNATURE_ALGORITHMS.to_bytes(2, "big") + vector(listing, 2)
    for extension, value in extensions:
        body += extension.to_bytes(2, "big") + vector(value, 2)
    return vector(body, 2)


def encode_request(
    requester: Role,
    *,
    context: bytes,
    signature_schemes: Sequence[SignatureScheme],
    extensions: Mapping[int, bytes],
) -> bytes:
    """Return the octets of `make_request`."""
    return make_request(
        requester, context=context, signature_schemes=signature_schemes, extensions=extensions
    ).raw


def decode_request(data: bytes, requester: Role) -> AuthenticatorRequest:
    """Decode a request that the peer, as `requester`, sent.

    Raises:
        DecodeError: malformed, or of the type that the other role sends.
    """
    expected = _CLIENT_CERTIFICATE_REQUEST if requester is Role.CLIENT else _CERTIFICATE_REQUEST
    reader = WireReader(data, format="authenticator request")
    kind = reader.integer(1, "message type")
    if kind != expected:
        raise DecodeError(
            f"type {kind}, a {requester.value}'s request has type {expected}",
            format="authenticator request",
        )
    body = WireReader(
        reader.vector(3, "request", most=MAX_REQUEST_OCTETS), format="authenticator request"
    )
    reader.finish()
    context = body.vector(1, "certificate_request_context")
    block = body.vector(2, "extensions", least=2)
    body.finish()
    schemes, extensions = _decode_request_block(block)
    return AuthenticatorRequest(
        context=context, signature_schemes=schemes, extensions=extensions, raw=data
    )


@lru_cache(maxsize=64)
def _decode_request_block(block: bytes) -> tuple[tuple[int, ...], Mapping[int, bytes]]:
    extensions = _decode_extensions(block)
    algorithms = extensions.pop(_SIGNATURE_ALGORITHMS, None)
    if algorithms is None:
        raise DecodeError("signature_algorithms is missing", format="authenticator request")
    listing = WireReader(algorithms, format="signature_algorithms")
    codes = listing.vector(2, "signature schemes", least=2)
    listing.finish()
    if len(codes) % 2:
        raise DecodeError("odd number of octets", format="signature_algorithms")
    schemes = tuple(int.from_bytes(codes[i : i + 2], "big") for i in range(0, len(codes), 2))
    return schemes, MappingProxyType(extensions)


def certificate_message(
    request: AuthenticatorRequest, chain: Sequence[bytes], extensions: Mapping[int, bytes]
) -> bytes:
    """Return the Certificate message: `chain` as DER, leaf first, `extensions` on the leaf.

    Only extensions that the request offered may be passed (RFC 9261 section 5.2.1).
    """
    if unsolicited := set(extensions) - set(request.extensions):
        raise PeerError(
            f"extension {min(unsolicited)} was not requested", alert="unsupported_extension"
        )
    entries = b""
    for index, certificate in enumerate(chain):
        block = b""
        if index == 0:
            for extension, value in extensions.items():
                block += extension.to_bytes(2, "big") + vector(value, 2)
        entries += vector(certificate, 3) + vector(block, 2)
    return handshake_message(_CERTIFICATE, vector(request.context, 1) + vector(entries, 3))


def certificate_verify_input(
    keys: AuthenticatorKeys, request: AuthenticatorRequest, certificate: bytes
) -> bytes:
    """Return the octets that the certificate's key signs (RFC 9261 section 5.2.2)."""
    transcript = keys.digest(keys.handshake_context, request.raw, certificate)
    return b"\x20" * 64 + b"Exported Authenticator" + b"\x00" + transcript


def finish_authenticator(
    keys: AuthenticatorKeys,
    request: AuthenticatorRequest,
    certificate: bytes,
    *,
    scheme: SignatureScheme,
    signature: bytes,
) -> bytes:
    """Put the authenticator together; `signature` is in TLS form (ECDSA as DER)."""
    verify = handshake_message(
        _CERTIFICATE_VERIFY, scheme.to_bytes(2, "big") + vector(signature, 2)
    )
    mac = keys.finished(keys.digest(keys.handshake_context, request.raw, certificate, verify))
    return certificate + verify + handshake_message(_FINISHED, mac)


def empty_authenticator(keys: AuthenticatorKeys, request: AuthenticatorRequest) -> bytes:
    """Return the authenticated refusal to authenticate (RFC 9261 section 6)."""
    mac = keys.finished(
        keys.digest(keys.handshake_context, request.raw, certificate_message(request, (), {}))
    )
    return handshake_message(_FINISHED, mac)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticator:
    """A validated authenticator: its sender holds the leaf's key, on this connection.

    Attributes:
        chain: DER certificates as sent, leaf first. Not yet validated against any bundle.
        extensions: extensions of the first entry.
    """

    chain: Sequence[bytes] = field(repr=False)
    extensions: Mapping[int, bytes] = field(repr=False)


def is_empty(data: bytes) -> bool:
    """Say whether `data` is a lone Finished: the peer declines."""
    return data[:1] == bytes([_FINISHED])


def validate_authenticator(
    keys: AuthenticatorKeys, request: AuthenticatorRequest, data: bytes
) -> Authenticator:
    """Check an authenticator that answers `request`; `keys` are those of its sender.

    1. Certificate, CertificateVerify and Finished, nothing else, nothing after.
    2. The context is the request's.
    3. Extensions are among those requested, and stand on the first entry only.
    4. The signature scheme was offered, fits the leaf's key, and the signature verifies.
    5. The Finished MAC matches.

    Whether the context was used before is the caller's to remember.

    Raises:
        DecodeError: malformed.
        PeerError: an empty authenticator, or a rule of steps 2 to 4 broken.
        SignatureError: steps 4 or 5 failed.
    """
    if len(data) > MAX_AUTHENTICATOR_OCTETS:
        raise DecodeError(f"more than {MAX_AUTHENTICATOR_OCTETS} octets", format=_FORMAT)
    if is_empty(data):
        if not hmac.compare_digest(data, empty_authenticator(keys, request)):
            raise SignatureError("the refusal itself is not authentic")
        raise PeerError("the peer declined to authenticate", alert="certificate_required")
    # Step 1.
    reader = WireReader(data, format=_FORMAT)
    certificate = _take_message(reader, _CERTIFICATE, "Certificate")
    after_certificate = reader.position
    verify = _take_message(reader, _CERTIFICATE_VERIFY, "CertificateVerify")
    after_verify = reader.position
    finished = _take_message(reader, _FINISHED, "Finished")
    reader.finish()
    # Steps 2 and 3.
    chain, extensions = _decode_certificate(certificate, request)
    # Step 4.
    body = WireReader(verify, format="CertificateVerify")
    scheme = body.integer(2, "signature scheme")
    signature = body.vector(2, "signature", least=1)
    body.finish()
    if scheme not in request.signature_schemes:
        raise PeerError(
            f"signature scheme 0x{scheme:04x} was not offered", alert="illegal_parameter"
        )
    signed = certificate_verify_input(keys, request, data[:after_certificate])
    _verify_signature(chain[0], scheme, signature, signed)
    # Step 5.
    expected = keys.finished(keys.digest(keys.handshake_context, request.raw, data[:after_verify]))
    if not hmac.compare_digest(finished, expected):
        raise SignatureError("the Finished MAC of the authenticator does not match this connection")
    return Authenticator(chain=chain, extensions=extensions)


def _take_message(reader: WireReader, kind: int, name: str) -> bytes:
    got = reader.integer(1, "message type")
    if got != kind:
        raise DecodeError(
            f"{name} (type {kind}) expected, type {got} found",
            format=_FORMAT,
            offset=reader.position - 1,
        )
    return reader.vector(3, name, most=MAX_AUTHENTICATOR_OCTETS)


def _decode_certificate(
    body: bytes, request: AuthenticatorRequest
) -> tuple[tuple[bytes, ...], Mapping[int, bytes]]:
    reader = WireReader(body, format="Certificate")
    context = reader.vector(1, "certificate_request_context")
    if not hmac.compare_digest(context, request.context):
        raise PeerError("the authenticator answers another request", alert="illegal_parameter")
    entries = reader.vector(3, "certificate_list", least=1)
    reader.finish()
    small = len(entries) <= _REMEMBERED_ENTRIES_OCTETS
    chain, first = _known_entries(entries) if small else _decode_entries(entries)
    if unsolicited := first.keys() - request.extensions.keys():
        raise PeerError(
            f"extension {min(unsolicited)} was not requested", alert="unsupported_extension"
        )
    return chain, first


def _decode_entries(data: bytes) -> tuple[tuple[bytes, ...], Mapping[int, bytes]]:
    entries = WireReader(data, format="Certificate")
    chain: list[bytes] = []
    first: dict[int, bytes] = {}
    while entries.remaining:
        if len(chain) == MAX_CHAIN_CERTIFICATES:
            raise DecodeError(
                f"more than {MAX_CHAIN_CERTIFICATES} certificates", format="Certificate"
            )
        certificate = entries.vector(3, "cert_data", least=1)
        extensions = _decode_extensions(entries.vector(2, "extensions"))
        if chain and extensions:
            raise PeerError(
                "an extension stands on a certificate other than the first",
                alert="illegal_parameter",
            )
        if not chain:
            first = extensions
        chain.append(certificate)
    return tuple(chain), MappingProxyType(first)


# A peer that shows a passport shows the same entries each time; with Evidence they are larger.
_REMEMBERED_ENTRIES_OCTETS = 8192
_known_entries = lru_cache(maxsize=512)(_decode_entries)


def _decode_extensions(data: bytes) -> dict[int, bytes]:
    reader = WireReader(data, format="extensions")
    extensions: dict[int, bytes] = {}
    while reader.remaining:
        kind = reader.integer(2, "extension type")
        if kind in extensions:
            raise DecodeError(f"extension {kind} occurs twice", format="extensions")
        extensions[kind] = reader.vector(2, "extension")
    return extensions


# A peer proves with one certificate for as long as that lasts. Failures are not kept.
@lru_cache(maxsize=1024)
def _leaf_key(leaf: bytes) -> object:
    try:
        return x509.load_der_x509_certificate(leaf).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise DecodeError(
            "the leaf is not an X.509 certificate with a key that Troth knows", format=_FORMAT
        ) from exc


def _verify_signature(leaf: bytes, scheme: int, signature: bytes, signed: bytes) -> None:
    key = _leaf_key(leaf)
    try:
        if scheme == SignatureScheme.ECDSA_SECP256R1_SHA256 and _is_curve(key, "secp256r1"):
            _ec(key).verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        elif scheme == SignatureScheme.ECDSA_SECP384R1_SHA384 and _is_curve(key, "secp384r1"):
            _ec(key).verify(signature, signed, ec.ECDSA(hashes.SHA384()))
        elif scheme == SignatureScheme.ED25519 and isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        elif scheme == SignatureScheme.RSA_PSS_RSAE_SHA256 and isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
            key.verify(signature, signed, pss, hashes.SHA256())
        else:
            raise PeerError(
                f"signature scheme 0x{scheme:04x} does not fit the certificate's key",
                alert="illegal_parameter",
            )
    except InvalidSignature as exc:
        raise SignatureError(
            "the authenticator is not signed by the certificate's key for this connection"
        ) from exc


def _is_curve(key: object, name: str) -> bool:
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == name


def _ec(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey):  # pragma: no cover - guarded by _is_curve
        raise PeerError("not an elliptic-curve key", alert="illegal_parameter")
    return key
