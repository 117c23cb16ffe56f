# SPDX-License-Identifier: Apache-2.0
"""Binding to two certificates and two nonces: for agents whose proxies own the TLS session.

An agent behind a proxy knows which certificate the peer showed and which ones its own proxy may
show, but has no exporter. So a proof is a COSE_Sign1 by the SVID's key over everything that tells
this connection from others:

====== ======================================================================================
key    statement
====== ======================================================================================
1      `PROFILE`
2      who proves: 0 the TLS client, 1 the TLS server
3      SHA-256 of the request that it answers, and with it the requester's nonce and parameters
4      the prover's own nonce, one for the connection
5      SHA-256 of the requester's certificate as the prover's proxy saw it
6      SHA-256 of each certificate that the prover's proxy may be showing, the newest first
7      the proving chain, DER, leaf first
8      the attestation payload, or empty
9      how the payload is encoded, or empty
====== ======================================================================================

A request is the map {1: `PROFILE`, 2: who asks, 3: its nonce, 4: what it accepts}. Key 6 is a list
because a proxy that has just been given its next SVID still finishes handshakes with the last one,
and does not say which it used.

What this proves, and what only a session binding does, is in docs/explanation/security.md. A
refusal to prove is not signed: it can only end a connection, which whoever reaches this far can
do anyway.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from troth.errors import ApiMisuseError, BindingError, DecodeError, PeerError
from troth.evidence.challenge import derive_challenge
from troth.formats import cbor
from troth.formats.cose import ALG, Sign1
from troth.formats.cose_key import ALGORITHM_IDS
from troth.formats.exported_authenticator import MAX_CHAIN_CERTIFICATES, Role
from troth.formats.limits import Limits
from troth.formats.verification_key import PublicKey, VerificationKey
from troth.identity.certificates import key_of
from troth.tls.core.binding import BindingKind, PendingProof, Proof, Request
from troth.tls.core.messages import (
    MAX_PROOF_OCTETS,
    MAX_REQUEST_OCTETS,
    PROOF_ALGORITHMS,
    RequestParameters,
)

__all__ = ["MAX_OWN_CERTIFICATES", "NONCE_OCTETS", "PROFILE", "CertificateBinding"]

PROFILE = "troth/gate-1"
NONCE_OCTETS = 32
MAX_OWN_CERTIFICATES = 4
MAX_PAYLOAD_OCTETS = 1 << 17

_DIGEST_OCTETS = 32
_AAD = b"troth gate proof"
_CHALLENGE = b"troth gate evidence"
_FORMAT = "gate proof"
_REQUEST = "gate request"
_ENCODINGS = ("", "deflate", "reference")
_ROLES = {Role.CLIENT: 0, Role.SERVER: 1}
_PROOF_LIMITS = Limits(max_bytes=MAX_PROOF_OCTETS, max_items=64, max_depth=4)
_REQUEST_LIMITS = Limits(max_bytes=MAX_REQUEST_OCTETS, max_items=16, max_depth=2)
_Items = dict[object, object]


class CertificateBinding:
    """Implements `ChannelBinding` for one connection between two proxies."""

    def __init__(
        self, *, role: Role, nonce: bytes, own: Sequence[bytes], peer: bytes = b""
    ) -> None:
        """Prepare the binding.

        Args:
            role: this end of the TLS connection.
            nonce: `NONCE_OCTETS` unpredictable octets, drawn for this connection.
            own: SHA-256 of each certificate that this side's proxy may be showing, newest first.
            peer: SHA-256 of the certificate that the peer showed; b"" where it is not known yet,
                which is enough to ask (see `see_peer`).

        Raises:
            ApiMisuseError: a nonce or digest of another size, or no or too many certificates.
        """
        if len(nonce) != NONCE_OCTETS:
            raise ApiMisuseError(f"the nonce has {len(nonce)} octets, not {NONCE_OCTETS}")
        if not 1 <= len(own) <= MAX_OWN_CERTIFICATES:
            raise ApiMisuseError(f"1 to {MAX_OWN_CERTIFICATES} certificates of our own, please")
        if any(len(digest) != _DIGEST_OCTETS for digest in own):
            raise ApiMisuseError("a certificate is named by its SHA-256 digest")
        self._role = role
        self._nonce = nonce
        self._own = tuple(own)
        self._peer = b""
        if peer:
            self.see_peer(peer)

    @property
    def kind(self) -> BindingKind:
        """Proofs cover nonces, certificates and direction, not the session."""
        return BindingKind.KEY

    @property
    def role(self) -> Role:
        """This end of the connection."""
        return self._role

    @property
    def max_payload_octets(self) -> int:
        """Leaves room for the chain."""
        return MAX_PAYLOAD_OCTETS

    def see_peer(self, digest: bytes) -> None:
        """Tell which certificate the peer showed, once TLS has said so.

        Raises:
            ApiMisuseError: no SHA-256 digest, or another one than before.
        """
        if len(digest) != _DIGEST_OCTETS or self._peer not in (b"", digest):
            raise ApiMisuseError("a connection has one peer, named by its certificate's SHA-256")
        self._peer = digest

    def make_request(self, context: bytes, parameters: RequestParameters) -> Request:
        """Make this side's request."""
        raw = cbor.encode({1: PROFILE, 2: _ROLES[self._role], 3: context, 4: parameters.encode()})
        return Request(requester=self._role, context=context, parameters=parameters, raw=raw)

    def read_request(self, data: bytes) -> Request:
        """Read the peer's request.

        Raises:
            DecodeError: malformed, of another profile, or made by our own role.
        """
        tree = _map(cbor.decode(data, format=_REQUEST, limits=_REQUEST_LIMITS), _REQUEST)
        _check_head(tree, self._role.other, _REQUEST)
        return Request(
            requester=self._role.other,
            context=_octets(tree, 3, _REQUEST),
            parameters=RequestParameters.decode(_octets(tree, 4, _REQUEST)),
            raw=data,
        )

    def challenge(self, request: Request, spki: bytes, size: int) -> bytes:
        """Return what this side's Evidence, answering the peer's `request`, must carry.

        Raises:
            ApiMisuseError: the peer's certificate is not known yet, or the request is our own.
        """
        if request.requester is self._role:
            raise ApiMisuseError("this side does not answer its own request")
        covered = _covered(request, self._nonce, self._known_peer(), self._own)
        return _challenge(self._role, spki, covered, size)

    def expected_challenge(self, proof: Proof, spki: bytes, size: int) -> bytes:
        """Return what the Evidence in the peer's `proof` must carry."""
        return _challenge(self._role.other, spki, proof.covered, size)

    def begin_proof(
        self, request: Request, chain: Sequence[bytes], payload: bytes, encoding: str = ""
    ) -> PendingProof:
        """Put the statement together and say what the leaf's key has to sign.

        Raises:
            ApiMisuseError: the peer's certificate is not known yet, the request is our own, or
                the leaf has no key to sign with here.
        """
        if request.requester is self._role:
            raise ApiMisuseError("this side does not answer its own request")
        try:
            algorithm = _algorithm(_leaf_key(chain))
        except DecodeError as exc:
            raise ApiMisuseError(f"the proving certificate: {exc}") from exc
        protected = cbor.encode({ALG: ALGORITHM_IDS[algorithm]})
        statement = cbor.encode(
            {
                1: PROFILE,
                2: _ROLES[self._role],
                3: hashlib.sha256(request.raw).digest(),
                4: self._nonce,
                5: self._known_peer(),
                6: list(self._own),
                7: list(chain),
                8: payload,
                9: encoding,
            }
        )
        return PendingProof(
            to_sign=cbor.encode([Sign1.CONTEXT, protected, _AAD, statement]),
            prefix=cbor.encode([protected, statement]),
            request=request,
        )

    def finish_proof(self, pending: PendingProof, algorithm: str, signature: bytes) -> bytes:
        """Complete the COSE_Sign1.

        Raises:
            ApiMisuseError: signed under another algorithm than the certificate's key has.
        """
        protected, statement = cast(
            "list[bytes]", cbor.decode(pending.prefix, format=_FORMAT, limits=_PROOF_LIMITS)
        )
        if cbor.encode({ALG: ALGORITHM_IDS.get(algorithm)}) != protected:
            raise ApiMisuseError(
                f"{algorithm} is not the algorithm of the proving certificate's key"
            )
        return cbor.encode(cbor.Tag(Sign1.TAG, [protected, {}, statement, signature]))

    def decline(self, request: Request) -> bytes:
        """Make the refusal to prove anything: the statement's first three entries, unsigned."""
        digest = hashlib.sha256(request.raw).digest()
        return cbor.encode({1: PROFILE, 2: _ROLES[self._role], 3: digest})

    def read_proof(self, request: Request, data: bytes) -> Proof:
        """Check the peer's proof for this side's `request`.

        1. A COSE_Sign1 by the key of the leaf that it carries.
        2. Made by the other role, for this very request.
        3. The prover saw one of our certificates, and counts the one that we saw among its own.
        4. The payload is no longer than we announced, encoded as we offered.

        Raises:
            DecodeError, SignatureError: step 1.
            BindingError: steps 2 and 3: the proof is about another connection.
            PeerError: step 4, or the peer declined (alert "certificate_required").
        """
        value = cbor.decode(data, format=_FORMAT, limits=_PROOF_LIMITS)
        if isinstance(value, dict):
            self._check_about(value, request)
            raise PeerError("the peer declined to prove anything", alert="certificate_required")
        # Step 1.
        message = Sign1.from_value(value, format=_FORMAT)
        tree = _map(cbor.decode(message.payload, format=_FORMAT, limits=_PROOF_LIMITS), _FORMAT)
        chain = _octet_list(tree, 7, most=MAX_CHAIN_CERTIFICATES)
        message.verify(
            VerificationKey(_leaf_key(chain)), algorithms=PROOF_ALGORITHMS, external_aad=_AAD
        )
        # Step 2.
        self._check_about(tree, request)
        # Step 3.
        nonce, saw = _octets(tree, 4, _FORMAT), _octets(tree, 5, _FORMAT)
        shown = _octet_list(tree, 6, most=MAX_OWN_CERTIFICATES)
        if len(nonce) != NONCE_OCTETS:
            raise DecodeError(f"key 4 (nonce) has {len(nonce)} octets", format=_FORMAT)
        if not any(hmac.compare_digest(saw, own) for own in self._own):
            raise BindingError("the peer proved on a connection with another certificate than ours")
        if not any(hmac.compare_digest(self._known_peer(), digest) for digest in shown):
            raise BindingError(
                "the proof is about another certificate than the one that TLS showed"
            )
        # Step 4.
        payload, encoding = _octets(tree, 8, _FORMAT), _encoding(tree, request.parameters)
        if len(payload) > request.parameters.max_proof_octets:
            raise PeerError("the attestation payload is larger than we announced")
        return Proof(
            chain=chain,
            payload=payload,
            encoding=encoding,
            request=request,
            covered=_covered(request, nonce, saw, shown),
        )

    def _known_peer(self) -> bytes:
        if not self._peer:
            raise ApiMisuseError("see_peer() first: the peer's certificate is not known")
        return self._peer

    def _check_about(self, tree: _Items, request: Request) -> None:
        _check_head(tree, self._role.other, _FORMAT)
        digest = hashlib.sha256(request.raw).digest()
        if not hmac.compare_digest(_octets(tree, 3, _FORMAT), digest):
            raise BindingError("the proof answers another request")


def _covered(request: Request, nonce: bytes, saw: bytes, shown: Sequence[bytes]) -> bytes:
    """What tells this proof from every other one, apart from who proves and with which key."""
    return hashlib.sha256(request.raw).digest() + nonce + saw + b"".join(shown)


def _challenge(prover: Role, spki: bytes, covered: bytes, size: int) -> bytes:
    return derive_challenge(_CHALLENGE + bytes([_ROLES[prover]]), spki, covered, size)


def _leaf_key(chain: Sequence[bytes]) -> PublicKey:
    try:
        leaf = x509.load_der_x509_certificate(chain[0])
    except (ValueError, x509.InvalidVersion) as exc:
        raise DecodeError("the leaf is not an X.509 certificate", format=_FORMAT) from exc
    return key_of(leaf)


def _algorithm(key: PublicKey) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        name = {"secp256r1": "ES256", "secp384r1": "ES384"}.get(key.curve.name, "")
    else:
        name = "EdDSA" if isinstance(key, ed25519.Ed25519PublicKey) else "PS256"
    if name not in PROOF_ALGORITHMS:
        raise DecodeError("the leaf's key cannot prove", format=_FORMAT)
    return name


def _encoding(tree: _Items, offered: RequestParameters) -> str:
    encoding = tree.get(9)
    if encoding not in _ENCODINGS:
        raise PeerError("an unknown payload encoding", alert="illegal_parameter")
    name = str(encoding)
    allowed = offered.takes_references if name == "reference" else name in ("", *offered.encodings)
    if not allowed:
        raise PeerError(f"payload encoding {name} was not offered", alert="illegal_parameter")
    return name


def _check_head(tree: _Items, sender: Role, format: str) -> None:
    if tree.get(1) != PROFILE:
        raise DecodeError(f"not of profile {PROFILE}", format=format)
    if type(tree.get(2)) is not int or tree[2] != _ROLES[sender]:
        raise DecodeError(f"not made by the {sender.value}", format=format)


def _map(value: object, format: str) -> _Items:
    if not isinstance(value, dict):
        raise DecodeError("not a map", format=format)
    return value


def _octets(tree: _Items, key: int, format: str) -> bytes:
    value = tree.get(key)
    if not isinstance(value, bytes):
        raise DecodeError(f"key {key} is not a byte string", format=format)
    return value


def _octet_list(tree: _Items, key: int, *, most: int) -> tuple[bytes, ...]:
    value = tree.get(key)
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise DecodeError(f"key {key} is not a list of 1 to {most}", format=_FORMAT)
    if not all(isinstance(entry, bytes) for entry in value):
        raise DecodeError(f"key {key} holds something else than byte strings", format=_FORMAT)
    return tuple(value)
