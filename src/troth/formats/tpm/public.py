# SPDX-License-Identifier: Apache-2.0
"""The public area of a TPM object: its key, what the TPM lets it do, and its name.

The name is a hash over the whole public area. Whoever knows an object by its name therefore knows
its attributes as well.

Source: TPM 2.0 Library, Part 2, sections 8.3 (TPMA_OBJECT) and 12.2 (public area); Part 1,
section 16 (names).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.jwk import ec_thumbprint, rsa_thumbprint
from troth.formats.tpm.algorithms import (
    CURVES,
    ECC,
    ECDAA,
    HASHES,
    NULL,
    RSA,
    RSAES,
    TpmHash,
    algorithm_name,
)
from troth.formats.tpm.reader import TpmReader
from troth.formats.verification_key import PublicKey, supported_public_key

__all__ = [
    "ADMIN_WITH_POLICY",
    "DECRYPT",
    "FIXED_PARENT",
    "FIXED_TPM",
    "MAX_PUBLIC_BYTES",
    "NO_DA",
    "RESTRICTED",
    "SENSITIVE_DATA_ORIGIN",
    "SIGN",
    "USER_WITH_AUTH",
    "EccPublic",
    "KeyScheme",
    "RsaPublic",
    "Symmetric",
    "TpmPublic",
    "attribute_names",
    "decode_public",
    "looks_like_public",
]

MAX_PUBLIC_BYTES: Final = 2_048
"""Octets of one public area; an RSA key of 8192 bits has 1,100."""

FIXED_TPM: Final = 1 << 1
FIXED_PARENT: Final = 1 << 4
SENSITIVE_DATA_ORIGIN: Final = 1 << 5
USER_WITH_AUTH: Final = 1 << 6
ADMIN_WITH_POLICY: Final = 1 << 7
NO_DA: Final = 1 << 10
RESTRICTED: Final = 1 << 16
DECRYPT: Final = 1 << 17
SIGN: Final = 1 << 18

_ATTRIBUTES: Final = {
    FIXED_TPM: "fixedtpm",
    1 << 2: "stclear",
    FIXED_PARENT: "fixedparent",
    SENSITIVE_DATA_ORIGIN: "sensitivedataorigin",
    USER_WITH_AUTH: "userwithauth",
    ADMIN_WITH_POLICY: "adminwithpolicy",
    NO_DA: "noda",
    1 << 11: "encryptedduplication",
    RESTRICTED: "restricted",
    DECRYPT: "decrypt",
    SIGN: "sign",
    1 << 19: "x509sign",
}
_RESERVED: Final = 0xFFFFFFFF & ~sum(_ATTRIBUTES)
_MAX_DIGEST: Final = 64
_MAX_MODULUS: Final = 1_024
_MAX_COORDINATE: Final = 66
_DEFAULT_EXPONENT: Final = 65_537
_FORMAT: Final = "TPMT_PUBLIC"
_KINDS: Final = (RSA.to_bytes(2), ECC.to_bytes(2))


@dataclass(frozen=True, slots=True)
class Symmetric:
    """The cipher that a storage key protects its children with; algorithm NULL for none."""

    algorithm: int = NULL
    bits: int = 0
    mode: int = 0


@dataclass(frozen=True, slots=True)
class KeyScheme:
    """The scheme that a key is restricted to; algorithm NULL where any will do.

    Attributes:
        algorithm: RSASSA, RSAPSS, ECDSA, …
        hash: its hash, 0 where it has none.
    """

    algorithm: int = NULL
    hash: int = 0


@dataclass(frozen=True, slots=True)
class RsaPublic:
    """TPMS_RSA_PARMS and modulus."""

    bits: int
    exponent: int
    modulus: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class EccPublic:
    """TPMS_ECC_PARMS and point; coordinates as they stand there, perhaps without leading zeros."""

    curve: int
    x: bytes = field(repr=False)
    y: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TpmPublic:
    """One public area.

    Attributes:
        raw: the TPMT_PUBLIC.
        name_algorithm: hash of the name; NULL for an object without one.
        attributes: bits such as RESTRICTED.
        policy: digest of the authorization policy, b"" for none.
        symmetric: for a restricted decryption key.
        scheme: for a signing key.
        key: the key.
    """

    raw: bytes = field(repr=False)
    name_algorithm: int
    attributes: int
    policy: bytes
    symmetric: Symmetric
    scheme: KeyScheme
    key: RsaPublic | EccPublic

    @property
    def name_hash(self) -> TpmHash:
        """The hash of the name.

        Raises:
            UnsupportedError: the object has no name, or by a hash that Troth does not compute.
        """
        known = HASHES.get(self.name_algorithm)
        if known is None:
            raise UnsupportedError(
                f"a name by {algorithm_name(self.name_algorithm)}", format=_FORMAT
            )
        return known

    @cached_property
    def name(self) -> bytes:
        """The object's name: hash algorithm, and hash over the public area.

        Raises:
            UnsupportedError: as `name_hash`.
        """
        return self.name_algorithm.to_bytes(2) + self.name_hash.digest(self.raw)

    def missing(self, attributes: int) -> tuple[str, ...]:
        """Return the names of those `attributes` that the object does not have."""
        return attribute_names(attributes & ~self.attributes)

    @cached_property
    def thumbprint(self) -> str:
        """The RFC 7638 thumbprint of the key, in hex, without building the key.

        Raises:
            UnsupportedError: a curve that Troth does not verify with.
        """
        key = self.key
        if isinstance(key, RsaPublic):
            return rsa_thumbprint(key.modulus, key.exponent)
        curve = CURVES.get(key.curve)
        if curve is None:
            raise _unknown_curve(key.curve)
        return ec_thumbprint(
            curve.curve, key.x.rjust(curve.size, b"\0"), key.y.rjust(curve.size, b"\0")
        )

    def public_key(self) -> PublicKey:
        """Return the key, ready to verify or encrypt with.

        Raises:
            UnsupportedError: a curve or size that Troth does not take.
            DecodeError: the point is not on the curve, or the numbers are no key.
        """
        key = self.key
        try:
            if isinstance(key, RsaPublic):
                numbers = rsa.RSAPublicNumbers(key.exponent, int.from_bytes(key.modulus))
                return supported_public_key(numbers.public_key(), format=_FORMAT)
            curve = CURVES.get(key.curve)
            if curve is None:
                raise _unknown_curve(key.curve)
            point = ec.EllipticCurvePublicNumbers(
                int.from_bytes(key.x), int.from_bytes(key.y), curve.curve
            )
            return point.public_key()
        except ValueError as exc:
            raise DecodeError(f"not a public key: {exc}", format=_FORMAT) from exc

    def sized(self) -> bytes:
        """Return the public area behind its length: TPM2B_PUBLIC."""
        return len(self.raw).to_bytes(2) + self.raw


@lru_cache(maxsize=64)
def attribute_names(attributes: int) -> tuple[str, ...]:
    """Return the names of these attributes, as tpm2-tools spell them."""
    return tuple(name for bit, name in _ATTRIBUTES.items() if attributes & bit)


def looks_like_public(data: bytes) -> bool:
    """Say whether `data` begins as a TPM2B_PUBLIC or TPMT_PUBLIC of an RSA or ECC key does."""
    return data[:2] in _KINDS or (
        len(data) > 4 and data[2:4] in _KINDS and int.from_bytes(data[:2]) == len(data) - 2
    )


def decode_public(data: bytes) -> TpmPublic:
    """Decode a TPMT_PUBLIC, or a TPM2B_PUBLIC (the same behind its length), whole.

    Does not check that the key is one: `public_key()` does.

    Raises:
        DecodeError: not one.
        UnsupportedError: neither RSA nor ECC.
        LimitExceededError: longer than any TPM makes one.
    """
    if len(data) > MAX_PUBLIC_BYTES:
        raise LimitExceededError(format=_FORMAT, limit="MAX_PUBLIC_BYTES", value=MAX_PUBLIC_BYTES)
    if len(data) > 4 and int.from_bytes(data[:2]) == len(data) - 2 and data[:2] not in _KINDS:
        data = data[2:]
    return _decoded(data)


@lru_cache(maxsize=1024)
def _decoded(data: bytes) -> TpmPublic:
    # A fleet's keys come back with each renewal; a public area never changes.
    reader = TpmReader(data, format=_FORMAT)
    kind = reader.integer(2, "type")
    if kind not in (RSA, ECC):
        raise UnsupportedError(
            f"an object of type {algorithm_name(kind)}; accepted are RSA and ECC keys",
            format=_FORMAT,
            offset=0,
        )
    name_algorithm = reader.integer(2, "nameAlg")
    attributes = reader.integer(4, "objectAttributes")
    if attributes & _RESERVED:
        raise reader.error(f"reserved attributes {attributes & _RESERVED:#010x}")
    policy = reader.sized("authPolicy", most=_MAX_DIGEST)
    symmetric = _symmetric(reader)
    scheme = _scheme(reader)
    key = _rsa(reader) if kind == RSA else _ecc(reader)
    reader.finish()
    return TpmPublic(
        raw=data,
        name_algorithm=name_algorithm,
        attributes=attributes,
        policy=policy,
        symmetric=symmetric,
        scheme=scheme,
        key=key,
    )


def _symmetric(reader: TpmReader) -> Symmetric:
    algorithm = reader.integer(2, "symmetric algorithm")
    if algorithm == NULL:
        return Symmetric()
    bits = reader.integer(2, "symmetric keyBits")
    return Symmetric(algorithm, bits, reader.integer(2, "symmetric mode"))


def _scheme(reader: TpmReader) -> KeyScheme:
    algorithm = reader.integer(2, "scheme")
    if algorithm in (NULL, RSAES):
        return KeyScheme(algorithm)
    hash_ = reader.integer(2, "hash of the scheme")
    if algorithm == ECDAA:
        reader.take(2, "count of the scheme")
    return KeyScheme(algorithm, hash_)


def _rsa(reader: TpmReader) -> RsaPublic:
    bits = reader.integer(2, "keyBits")
    exponent = reader.integer(4, "exponent") or _DEFAULT_EXPONENT
    return RsaPublic(bits, exponent, reader.sized("modulus", most=_MAX_MODULUS))


def _ecc(reader: TpmReader) -> EccPublic:
    curve = reader.integer(2, "curveID")
    if reader.integer(2, "kdf") != NULL:
        reader.take(2, "hash of the kdf")
    x = reader.sized("x", most=_MAX_COORDINATE)
    y = reader.sized("y", most=_MAX_COORDINATE)
    size = CURVES[curve].size if curve in CURVES else _MAX_COORDINATE
    if max(len(x), len(y)) > size:
        raise reader.error(f"a coordinate of more than {size} octets")
    return EccPublic(curve, x, y)


def _unknown_curve(number: int) -> UnsupportedError:
    return UnsupportedError(
        f"curve {number:#06x}; accepted are P-256, P-384 and P-521", format=_FORMAT
    )
