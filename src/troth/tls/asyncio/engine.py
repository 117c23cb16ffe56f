# SPDX-License-Identifier: Apache-2.0
"""One TLS 1.3 connection over memory, on an unmodified OpenSSL, through pyOpenSSL's public calls.

Full handshakes only: OpenSSL's session cache is off, no session is ever set, and both ends insist
on having seen the peer's certificate in this very handshake, which a resumed handshake never
shows. pyOpenSSL has no call that stops an OpenSSL server from sending tickets: it sends two, which
name sessions that it has not kept. A client of ours drops them unread; one that a foreign client
returns finds no session to resume. Early data would need a session too, and OpenSSL refuses it
unless a server asks for it, which this one never does.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from OpenSSL import SSL, crypto

from troth.errors import ApiMisuseError, ChainError, PeerError
from troth.formats.exported_authenticator import Role

__all__ = ["TlsContext", "TlsEngine"]

_CHUNK = 1 << 16
# SSL_MODE_NO_AUTO_CHAIN (openssl/ssl.h), which pyOpenSSL does not name. Without it OpenSSL sends
# our own authority's certificate along, 450 octets in each handshake that the peer has already.
_MODE_NO_AUTO_CHAIN = 0x8
_MODE_ENABLE_PARTIAL_WRITE = 0x1
# Octets handed over at once: what 64 KiB become, and below what allocators map anew each time.
_OUTGOING = 100_000
# TLS 1.3 suites whose hash the exporter and the authenticators use.
_SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"


class TlsContext:
    """Settings that many connections of one role share.

    The chain check here is OpenSSL's own, against all given authorities; which trust domain may
    vouch for which SPIFFE ID is checked after the handshake, on the same chain.
    """

    def __init__(
        self,
        *,
        role: Role,
        chain: Sequence[x509.Certificate],
        private_key: object,
        authorities: Sequence[x509.Certificate],
        alpn: str,
    ) -> None:
        """Load one identity.

        Args:
            role: which end of the connections.
            chain: X.509-SVID, leaf first.
            private_key: the leaf's private key, an object of `cryptography`.
            authorities: CA certificates that a peer's chain may end at; at least one.
            alpn: the only application protocol that is spoken.

        Raises:
            ApiMisuseError: nothing to present, nobody to trust, or the key is not the leaf's.
        """
        if not chain or not authorities:
            raise ApiMisuseError("a certificate chain and at least one authority are needed")
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_max_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(_SUITES)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_mode(_MODE_NO_AUTO_CHAIN)
        # Memory takes everything, so one call may write many records.
        context.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
        context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        try:
            context.use_certificate(chain[0])
            for extra in chain[1:]:
                context.add_extra_chain_cert(extra)
            context.use_privatekey(private_key)  # type: ignore[arg-type]  # checked by OpenSSL itself
            context.check_privatekey()
        except (SSL.Error, TypeError) as exc:
            raise ApiMisuseError("the private key does not belong to the certificate") from exc
        store = context.get_cert_store()
        if store is None:  # pragma: no cover - every context has one
            raise ApiMisuseError("OpenSSL has no certificate store")
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
        protocol = alpn.encode()
        context.set_alpn_protos([protocol])
        if role is Role.SERVER:
            context.set_alpn_select_callback(
                lambda _, offered: protocol if protocol in offered else SSL.NO_OVERLAPPING_PROTOCOLS
            )
        self.role = role
        self.alpn = protocol
        self.context = context


class TlsEngine:
    """Turns octets of the network into octets of the application and back."""

    def __init__(self, context: TlsContext) -> None:
        self._saw_certificate = False
        self._context = context
        self._tls = SSL.Connection(context.context, None)
        # Set on the connection, so that the flag is this handshake's own.
        self._tls.set_verify(
            SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._on_certificate
        )
        if context.role is Role.CLIENT:
            self._tls.set_connect_state()
        else:
            self._tls.set_accept_state()
        self._established = False

    @property
    def role(self) -> Role:
        """This end."""
        return self._context.role

    @property
    def established(self) -> bool:
        """Whether the handshake is done and was a full one with the peer's certificate."""
        return self._established

    @property
    def hash_name(self) -> str:
        """Hash of the negotiated cipher suite: "sha256" or "sha384"."""
        name = self._tls.get_cipher_name() or ""
        return "sha384" if name.endswith("SHA384") else "sha256"

    @property
    def peer_chain(self) -> list[bytes]:
        """The peer's certificates as sent, DER, leaf first."""
        leaf = self._tls.get_peer_certificate(as_cryptography=False)
        if leaf is None:
            return []
        sent = [_der(each) for each in self._tls.get_peer_cert_chain(as_cryptography=False) or ()]
        # OpenSSL leaves the leaf out of the chain on servers, and only there.
        first = _der(leaf)
        return sent if sent[:1] == [first] else [first, *sent]

    def export(self, label: str, context: bytes, size: int) -> bytes:
        """Return exported keying material (RFC 8446 section 7.5).

        Raises:
            ApiMisuseError: the handshake is not done.
        """
        if not self._established:
            raise ApiMisuseError("there is nothing to export before the handshake is done")
        exported: bytes = self._tls.export_keying_material(label.encode(), size, context)
        return exported

    def receive(self, data: bytes) -> None:
        """Take octets from the network."""
        if data:
            self._tls.bio_write(data)

    def handshake(self) -> bool:
        """Go on with the handshake; return whether it is done.

        Raises:
            ChainError: no certificate, or one that leads to no authority.
            PeerError: any other failure of TLS, or a peer that does not speak our protocol.
        """
        if self._established:
            return True
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return False
        except SSL.Error as exc:
            raise self._failure(exc) from exc
        if self._tls.get_protocol_version_name() != "TLSv1.3" or not self._saw_certificate:
            raise PeerError("not a full TLS 1.3 handshake with the peer's certificate")
        if self._tls.get_alpn_proto_negotiated() != self._context.alpn:
            raise PeerError(
                f"the peer does not speak {self._context.alpn.decode()}",
                alert="no_application_protocol",
            )
        self._established = True
        return True

    def read(self) -> list[bytes]:
        """Return application octets that have arrived, in pieces as TLS had them.

        Raises:
            PeerError: a TLS failure.
            EOFError: the peer has closed its direction of TLS.
        """
        pieces: list[bytes] = []
        while True:
            try:
                pieces.append(self._tls.recv(_CHUNK))
            except SSL.WantReadError:
                return pieces
            except SSL.ZeroReturnError:
                if pieces:
                    return pieces
                raise EOFError from None
            except SSL.Error as exc:
                raise self._failure(exc) from exc

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt application octets; `outgoing` then has them.

        Raises:
            PeerError: a TLS failure, or either side has closed this direction.
        """
        view = memoryview(data)
        while view:
            try:
                sent = self._tls.send(view)
            except SSL.Error as exc:
                raise self._failure(exc) from exc
            view = view[sent:]

    def outgoing(self) -> bytes:
        """Hand over octets for the network."""
        pieces = []
        while True:
            try:
                piece: bytes = self._tls.bio_read(_OUTGOING)
            except SSL.WantReadError:
                break
            pieces.append(piece)
            if len(piece) < _OUTGOING:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Put close_notify into `outgoing`."""
        try:
            self._tls.shutdown()
        except SSL.Error:
            # Nothing to notify: the handshake was not done, or the peer is gone.
            return

    def _on_certificate(
        self, _tls: SSL.Connection, _certificate: object, _error: int, _depth: int, ok: int
    ) -> bool:
        self._saw_certificate = True
        return bool(ok)

    @staticmethod
    def _failure(exc: SSL.Error) -> PeerError | ChainError:
        reasons = [entry[2] for entry in exc.args[0]] if exc.args and exc.args[0] else []
        text = ", ".join(str(reason) for reason in reasons) or "the peer closed the connection"
        if "certificate verify failed" in text or "peer did not return a certificate" in text:
            return ChainError(f"TLS: {text}")
        return PeerError(f"TLS: {text}", alert="handshake_failure")


def _der(certificate: crypto.X509) -> bytes:
    encoded: bytes = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    return encoded
