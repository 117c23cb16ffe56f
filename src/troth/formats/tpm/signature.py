# SPDX-License-Identifier: Apache-2.0
"""TPMT_SIGNATURE: RSASSA, RSAPSS and ECDSA.

Source: TPM 2.0 Library, Part 2, section 11.3; Part 1, annexes B.6 (RSASSA), B.7 (RSAPSS: the
salt is as long as the key allows, or as the hash) and C.4 (ECDSA).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from troth.errors import SignatureError, UnsupportedError
from troth.formats.tpm.algorithms import (
    CURVES,
    ECDSA,
    HASHES,
    RSAPSS,
    RSASSA,
    SHA2,
    TpmHash,
    algorithm_name,
)
from troth.formats.tpm.reader import TpmReader
from troth.formats.verification_key import VerificationKey

__all__ = ["MAX_SIGNATURE_BYTES", "TpmSignature", "decode_signature"]

MAX_SIGNATURE_BYTES: Final = 1_024
"""Octets of one signature: RSA of 8192 bits."""

_MAX_COORDINATE: Final = 66
_FORMAT: Final = "TPMT_SIGNATURE"
_SIZES: Final = {each.curve.name: each.size for each in CURVES.values()}
_ECDSA: Final = {number: ec.ECDSA(HASHES[number].algorithm) for number in SHA2}
_PSS: Final = {
    number: padding.PSS(padding.MGF1(HASHES[number].algorithm), padding.PSS.AUTO) for number in SHA2
}
_PKCS1: Final = padding.PKCS1v15()
# What a key's source calls the algorithm that it restricts the key to.
_JOSE_PREFIXES: Final = {ECDSA: "ES", RSAPSS: "PS", RSASSA: "RS"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmSignature:
    """One signature.

    Attributes:
        scheme: RSASSA, RSAPSS or ECDSA.
        hash: the hash, never SHA-1.
        rsa: the signature, for the RSA schemes.
        r, s: the signature, for ECDSA.
    """

    scheme: int
    hash: TpmHash
    rsa: bytes = field(default=b"", repr=False)
    r: int = field(default=0, repr=False)
    s: int = field(default=0, repr=False)

    def verify(self, key: VerificationKey, data: bytes, *, format: str) -> None:
        """Verify that `key` signed `data`.

        Says nothing about whether the key may be believed, nor whether a TPM holds it.

        Raises:
            SignatureError: the key does not fit the scheme, or did not sign this.
        """
        name = self._jose_name()
        if key.algorithm and key.algorithm != name:
            raise SignatureError(
                f"{format}: algorithm {name}, but the key{_from(key)} is for {key.algorithm} only"
            )
        material = key.material
        try:
            if self.scheme == ECDSA:
                if not isinstance(material, ec.EllipticCurvePublicKey):
                    raise self._unfit(key, "an elliptic-curve key", format)
                limit = 1 << 8 * _SIZES.get(material.curve.name, 0)
                if not 0 < self.r < limit or not 0 < self.s < limit:
                    raise self._unfit(key, "a key on a larger curve", format)
                material.verify(encode_dss_signature(self.r, self.s), data, _ECDSA[self.hash.id])
            elif not isinstance(material, rsa.RSAPublicKey):
                raise self._unfit(key, "an RSA key", format)
            else:
                pad = _PSS[self.hash.id] if self.scheme == RSAPSS else _PKCS1
                material.verify(self.rsa, data, pad, self.hash.algorithm)
        except InvalidSignature as exc:
            raise SignatureError(
                f"{format}: the {algorithm_name(self.scheme)} signature does not verify under "
                f"the key{_from(key)}"
            ) from exc

    def _jose_name(self) -> str:
        return f"{_JOSE_PREFIXES[self.scheme]}{8 * self.hash.size}"

    def _unfit(self, key: VerificationKey, wanted: str, format: str) -> SignatureError:
        scheme = algorithm_name(self.scheme)
        return SignatureError(f"{format}: {scheme} needs {wanted}; the key{_from(key)} is not one")


def decode_signature(data: bytes) -> TpmSignature:
    """Decode a TPMT_SIGNATURE, whole.

    Raises:
        DecodeError: not one.
        UnsupportedError: another scheme, or a hash that is too weak to sign with.
        LimitExceededError: longer than any TPM makes one.
    """
    reader = TpmReader(data, format=_FORMAT)
    scheme = reader.integer(2, "sigAlg")
    if scheme not in _JOSE_PREFIXES:
        raise UnsupportedError(
            f"{algorithm_name(scheme)} signatures; accepted are RSASSA, RSAPSS and ECDSA",
            format=_FORMAT,
            offset=0,
        )
    number = reader.integer(2, "hash")
    if number not in SHA2:
        raise UnsupportedError(
            f"signed over {algorithm_name(number)}; accepted are SHA-256, SHA-384 and SHA-512",
            format=_FORMAT,
            offset=2,
        )
    if scheme == ECDSA:
        r = reader.sized("signatureR", most=_MAX_COORDINATE)
        s = reader.sized("signatureS", most=_MAX_COORDINATE)
        signature = TpmSignature(
            scheme=scheme, hash=HASHES[number], r=int.from_bytes(r), s=int.from_bytes(s)
        )
    else:
        octets = reader.sized("sig", most=MAX_SIGNATURE_BYTES)
        signature = TpmSignature(scheme=scheme, hash=HASHES[number], rsa=octets)
    reader.finish()
    return signature


def _from(key: VerificationKey) -> str:
    return f" from {key.source}" if key.source else ""
