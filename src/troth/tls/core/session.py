# SPDX-License-Identifier: Apache-2.0
"""Binding to a TLS 1.3 session: requests and proofs are Exported Authenticators.

Needs three things of the TLS stack: its exporter, the hash of the cipher suite, and which end this
is. Those are public in every stack that Troth runs on.

Source: draft-fossati-seat-expat-03 sections "cmw_attestation" and "Attestation Binder"; RFC 9261.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from troth.errors import ApiMisuseError, DecodeError, PeerError
from troth.formats.exported_authenticator import (
    AuthenticatorKeys,
    AuthenticatorRequest,
    Role,
    SignatureScheme,
    certificate_message,
    certificate_verify_input,
    decode_request,
    empty_authenticator,
    exporter_labels,
    finish_authenticator,
    make_request,
    validate_authenticator,
)
from troth.tls.core.binding import BindingKind, PendingProof, Proof, Request
from troth.tls.core.messages import RequestParameters
from troth.tls.core.profile import EXPAT_03, Profile

__all__ = ["SessionBinding"]

_SCHEMES = {
    "ES256": SignatureScheme.ECDSA_SECP256R1_SHA256,
    "ES384": SignatureScheme.ECDSA_SECP384R1_SHA384,
    "EdDSA": SignatureScheme.ED25519,
    "PS256": SignatureScheme.RSA_PSS_RSAE_SHA256,
}
_OFFERED = tuple(SignatureScheme)
_ENCODINGS = {1: "deflate", 2: "reference"}
_ENCODING_CODES = {name: code for code, name in _ENCODINGS.items()}
# The extensions of an entry share a vector of 65,535 octets: 4 for the header, 1 for the encoding.
MAX_PAYLOAD_OCTETS = (1 << 16) - 1 - 4 - 1
_HASH_OCTETS = {"sha256": 32, "sha384": 48}

Exporter = Callable[[str, bytes, int], bytes]


class SessionBinding:
    """Implements `ChannelBinding` for one TLS 1.3 connection."""

    def __init__(
        self, *, role: Role, exporter: Exporter, hash_name: str, profile: Profile = EXPAT_03
    ) -> None:
        """Prepare the binding of an established connection.

        Args:
            role: this end.
            exporter: (label, context, octets) to keying material, as RFC 8446 section 7.5.
            hash_name: hash of the negotiated cipher suite, "sha256" or "sha384".
            profile: the unsettled points of the draft.

        Raises:
            ApiMisuseError: a hash that no TLS 1.3 suite has.
        """
        if hash_name not in _HASH_OCTETS:
            raise ApiMisuseError(f"no TLS 1.3 cipher suite has the hash {hash_name!r}")
        self._role = role
        self._exporter = exporter
        self._hash = hash_name
        self._profile = profile
        self._keys: dict[Role, AuthenticatorKeys] = {}

    @property
    def kind(self) -> BindingKind:
        """Proofs cover this very session."""
        return BindingKind.SESSION

    @property
    def role(self) -> Role:
        """This end of the connection."""
        return self._role

    @property
    def max_payload_octets(self) -> int:
        """What is left of a TLS extension block beside its own headers."""
        return MAX_PAYLOAD_OCTETS

    def make_request(self, context: bytes, parameters: RequestParameters) -> Request:
        """Make this side's request; an empty cmw_attestation asks for attestation."""
        made = make_request(
            self._role,
            context=context,
            signature_schemes=_OFFERED,
            extensions={
                self._profile.cmw_extension: b"",
                self._profile.parameters_extension: parameters.encode(),
                **(
                    {self._profile.encoded_extension: b""}
                    if parameters.encodings or parameters.takes_references
                    else {}
                ),
            },
        )
        return Request(
            requester=self._role,
            context=context,
            parameters=parameters,
            raw=made.raw,
            detail=made,
        )

    def read_request(self, data: bytes) -> Request:
        """Read the peer's request.

        Raises:
            DecodeError: malformed, or it does not ask for attestation by this profile.
        """
        decoded = decode_request(data, self._role.other)
        parameters = decoded.extensions.get(self._profile.parameters_extension)
        if decoded.extensions.get(self._profile.cmw_extension) != b"" or parameters is None:
            raise DecodeError(
                "the request does not offer cmw_attestation with its parameters",
                format="authenticator request",
            )
        if len(decoded.context) < 16:
            raise DecodeError(
                "the context is too short to be unpredictable", format="authenticator request"
            )
        return Request(
            requester=self._role.other,
            context=decoded.context,
            parameters=RequestParameters.decode(parameters),
            raw=data,
            detail=decoded,
        )

    def challenge(self, request: Request, spki: bytes, size: int) -> bytes:
        """Return the attestation binder, zero-padded or cut to `size` octets.

        binder = Hash(SPKI || Exporter("Attestation", certificate_request_context, 32)).
        """
        return self._binder(request, spki, size)

    def expected_challenge(self, proof: Proof, spki: bytes, size: int) -> bytes:
        """Return the binder that the peer must have used: the same computation."""
        return self._binder(proof.request, spki, size)

    def _binder(self, request: Request, spki: bytes, size: int) -> bytes:
        exported = self._exporter(
            self._profile.exporter_label, request.context, self._profile.exporter_octets
        )
        binder = hashlib.new(self._hash, spki + exported).digest()
        return binder[:size].ljust(size, b"\x00")

    def begin_proof(
        self, request: Request, chain: Sequence[bytes], payload: bytes, encoding: str = ""
    ) -> PendingProof:
        """Put the Certificate message together and say what the leaf's key has to sign."""
        asked = self._asked(request)
        extensions: dict[int, bytes] = {}
        if payload and encoding:
            code = bytes([_ENCODING_CODES[encoding]])
            extensions[self._profile.encoded_extension] = code + payload
        elif payload:
            extensions[self._profile.cmw_extension] = payload
        certificate = certificate_message(asked, chain, extensions)
        return PendingProof(
            to_sign=certificate_verify_input(self._keys_of(self._role), asked, certificate),
            prefix=certificate,
            request=request,
        )

    def finish_proof(self, pending: PendingProof, algorithm: str, signature: bytes) -> bytes:
        """Complete the authenticator.

        Raises:
            ApiMisuseError: an algorithm that TLS 1.3 does not have.
        """
        scheme = _SCHEMES.get(algorithm)
        if scheme is None:
            raise ApiMisuseError(f"{algorithm} cannot sign in TLS 1.3; use one of {list(_SCHEMES)}")
        if algorithm in ("ES256", "ES384"):
            half = len(signature) // 2
            signature = encode_dss_signature(
                int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
            )
        return finish_authenticator(
            self._keys_of(self._role),
            self._asked(pending.request),
            pending.prefix,
            scheme=scheme,
            signature=signature,
        )

    def decline(self, request: Request) -> bytes:
        """Make the empty authenticator."""
        return empty_authenticator(self._keys_of(self._role), self._asked(request))

    def read_proof(self, request: Request, data: bytes) -> Proof:
        """Validate the peer's authenticator for this side's `request`.

        Raises:
            DecodeError, PeerError, SignatureError: as `validate_authenticator`.
        """
        asked = _detail(request)
        answer = validate_authenticator(self._keys_of(self._role.other), asked, data)
        plain = answer.extensions.get(self._profile.cmw_extension, b"")
        encoded = answer.extensions.get(self._profile.encoded_extension, b"")
        if plain and encoded:
            raise PeerError("two attestation payloads in one authenticator")
        if max(len(plain), len(encoded) - 1) > request.parameters.max_proof_octets:
            raise PeerError("the attestation payload is larger than we announced")
        encoding = ""
        if encoded:
            encoding = _ENCODINGS.get(encoded[0], "")
            allowed = (
                request.parameters.takes_references
                if encoding == "reference"
                else encoding in request.parameters.encodings
            )
            if not encoding or not allowed:
                raise PeerError(f"payload encoding {encoded[0]} was not offered")
        return Proof(
            chain=answer.chain,
            payload=encoded[1:] if encoding else plain,
            encoding=encoding,
            request=request,
        )

    def _asked(self, request: Request) -> AuthenticatorRequest:
        if request.requester is self._role:
            raise ApiMisuseError("this side does not answer its own request")
        return _detail(request)

    def _keys_of(self, sender: Role) -> AuthenticatorKeys:
        """Derive the keys of one direction when it is first used; many use one direction only."""
        keys = self._keys.get(sender)
        if keys is None:
            size = _HASH_OCTETS[self._hash]
            context, finished = exporter_labels(sender)
            keys = AuthenticatorKeys(
                self._exporter(context, b"", size), self._exporter(finished, b"", size), self._hash
            )
            self._keys[sender] = keys
        return keys


def _detail(request: Request) -> AuthenticatorRequest:
    if isinstance(request.detail, AuthenticatorRequest):
        return request.detail
    return decode_request(request.raw, request.requester)
