# SPDX-License-Identifier: Apache-2.0
"""TLS to one server that is known by its SPIFFE ID and by the trust bundle alone.

Host names say nothing here. The check of the SPIFFE ID is part of the handshake: a server with
another identity gets no octet of a request.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable

from cryptography.hazmat.primitives.serialization import Encoding

from troth.errors import ConfigurationError, DecodeError, UnavailableError
from troth.identity.spiffe_id import SpiffeId
from troth.identity.x509_svid import X509Svid

__all__ = ["pinned_context"]


def pinned_context(
    trust_bundle: str, server_id: SpiffeId, *, identity: X509Svid | None = None
) -> ssl.SSLContext:
    """Return a TLS 1.3 client context that talks to `server_id` only.

    Args:
        trust_bundle: PEM certificates of the trust domain's authorities.
        server_id: whom the server's certificate has to name.
        identity: our own SVID with its private key, or None to stay anonymous.

    Raises:
        ConfigurationError: the bundle holds no certificates.
    """
    context = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.server_id = server_id
    try:
        context.load_verify_locations(cadata=trust_bundle)
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigurationError(
            source="trust bundle", accepted="PEM certificates of the trust domain's authorities"
        ) from exc
    if identity is not None:
        pem = identity.encode_pem() + identity.encode_private_key(Encoding.PEM)
        _with_file(pem, context.load_cert_chain)
    return context


class _PinnedContext(ssl.SSLContext):
    server_id: SpiffeId


class _PinnedObject(ssl.SSLObject):
    """Ends the handshake of a server that is somebody else."""

    def do_handshake(self) -> None:
        super().do_handshake()
        context = self.context
        if not isinstance(context, _PinnedContext):
            raise ssl.SSLCertVerificationError("no server is pinned")
        certificate = self.getpeercert(binary_form=True) or b""
        try:
            found = X509Svid.decode(certificate).spiffe_id
        except DecodeError as exc:
            raise ssl.SSLCertVerificationError(f"the server shows no X.509-SVID: {exc}") from exc
        if found != context.server_id:
            raise ssl.SSLCertVerificationError(f"the server is {found}, not {context.server_id}")


_PinnedContext.sslobject_class = _PinnedObject


def _with_file(data: bytes, use: Callable[[str], None]) -> None:
    # OpenSSL reads certificates and keys from files only; this one is in no directory.
    descriptor = os.memfd_create("svid", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        use(f"/proc/self/fd/{descriptor}")
    except (OSError, ssl.SSLError) as exc:
        raise UnavailableError(f"our SVID cannot be used for TLS: {exc}") from exc
    finally:
        os.close(descriptor)
