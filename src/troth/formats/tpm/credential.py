# SPDX-License-Identifier: Apache-2.0
"""A secret that only one TPM can open, and only if a certain key lives in it.

`make_credential` does in software what TPM2_MakeCredential does: it needs public parts only. The
TPM that holds the endorsement key (EK) opens the result with TPM2_ActivateCredential, and checks
the name of the other key before it gives the secret out.

Source: TPM 2.0 Library, Part 1, sections 11.4.10 (KDFa, KDFe) and 24 (credential protection),
annexes B.10.4 and C.6.4 (sharing a seed with an RSA and an ECC key).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from troth.errors import ApiMisuseError, LimitExceededError, UnsupportedError
from troth.formats.tpm import algorithms as alg
from troth.formats.tpm.algorithms import TpmHash
from troth.formats.tpm.public import DECRYPT, RESTRICTED, EccPublic, TpmPublic
from troth.formats.tpm.reader import TpmReader

__all__ = [
    "MAX_CREDENTIAL_BYTES",
    "Credential",
    "decode_credential",
    "kdfa",
    "kdfe",
    "make_credential",
]

MAX_CREDENTIAL_BYTES: Final = 4_096
"""Octets of one credential; one for an RSA key of 4096 bits has 600."""

_MAX_BLOB: Final = 1_024
_MAX_DIGEST: Final = 64
_FILE_MAGIC: Final = bytes.fromhex("badcc0de00000001")
_AES_BITS: Final = (128, 192, 256)
_FORMAT: Final = "credential"


@dataclass(frozen=True, slots=True)
class Credential:
    """What travels to the TPM. It is no secret.

    Attributes:
        id_object: TPMS_ID_OBJECT: integrity and encrypted secret (inside the TPM2B).
        encrypted_seed: TPM2B_ENCRYPTED_SECRET's content.
    """

    id_object: bytes = field(repr=False)
    encrypted_seed: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, one after the other."""
        return _sized(self.id_object) + _sized(self.encrypted_seed)

    def encode_file(self) -> bytes:
        """Return the file that `tpm2_activatecredential -i` reads."""
        return _FILE_MAGIC + self.encode()


def decode_credential(data: bytes) -> Credential:
    """Decode what `Credential.encode` or `encode_file` gives, whole.

    Raises:
        DecodeError: not one.
        LimitExceededError: longer than any TPM makes one.
    """
    if len(data) > MAX_CREDENTIAL_BYTES:
        raise LimitExceededError(
            format=_FORMAT, limit="MAX_CREDENTIAL_BYTES", value=MAX_CREDENTIAL_BYTES
        )
    reader = TpmReader(data.removeprefix(_FILE_MAGIC), format=_FORMAT)
    id_object = reader.sized("TPM2B_ID_OBJECT", most=_MAX_BLOB)
    encrypted_seed = reader.sized("TPM2B_ENCRYPTED_SECRET", most=_MAX_BLOB)
    reader.finish()
    return Credential(id_object, encrypted_seed)


def make_credential(
    endorsement_key: TpmPublic, name: bytes, secret: bytes, *, random: Callable[[int], bytes]
) -> Credential:
    """Return `secret` for the TPM that holds `endorsement_key`, if `name` lives in it too.

    Says nothing about whether that is the endorsement key of a genuine TPM: its certificate or a
    register of devices does. The padding of RSA-OAEP is drawn from the operating system.

    Args:
        endorsement_key: a restricted decryption key, such as the EK.
        name: of the key that must be in the same TPM.
        secret: at most as long as the endorsement key's name hash.
        random: gives that many octets.

    Raises:
        UnsupportedError: not a storage key with AES in CFB mode.
        DecodeError: the endorsement key is no key.
        ApiMisuseError: the secret is empty or too long.
    """
    hash_ = endorsement_key.name_hash
    bits = _storage_key_bits(endorsement_key)
    if not 1 <= len(secret) <= hash_.size:
        raise ApiMisuseError(f"a secret has 1 to {hash_.size} octets, not {len(secret)}")
    seed, encrypted_seed = _share_seed(endorsement_key, hash_, random)
    key = kdfa(hash_, seed, b"STORAGE", name, b"", bits)
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(_sized(secret)) + encryptor.finalize()
    integrity_key = kdfa(hash_, seed, b"INTEGRITY", b"", b"", 8 * hash_.size)
    integrity = hmac.digest(integrity_key, identity + name, hash_.hashlib_name)
    return Credential(_sized(integrity) + identity, encrypted_seed)


def kdfa(  # noqa: PLR0917 - the order of the specification
    hash_: TpmHash, key: bytes, label: bytes, context_u: bytes, context_v: bytes, bits: int
) -> bytes:
    """Return `bits` bits (a multiple of 8) of the counter-mode KDF over HMAC."""
    tail = label + b"\0" + context_u + context_v + bits.to_bytes(4)
    blocks = -(-bits // (8 * hash_.size))
    output = b"".join(
        hmac.digest(key, counter.to_bytes(4) + tail, hash_.hashlib_name)
        for counter in range(1, blocks + 1)
    )
    return output[: bits // 8]


def kdfe(  # noqa: PLR0917 - the order of the specification
    hash_: TpmHash, shared: bytes, label: bytes, party_u: bytes, party_v: bytes, bits: int
) -> bytes:
    """Return `bits` bits (a multiple of 8) of the KDF over an ECDH result."""
    tail = shared + label + b"\0" + party_u + party_v
    blocks = -(-bits // (8 * hash_.size))
    output = b"".join(hash_.digest(counter.to_bytes(4) + tail) for counter in range(1, blocks + 1))
    return output[: bits // 8]


def _storage_key_bits(key: TpmPublic) -> int:
    symmetric = key.symmetric
    if key.missing(RESTRICTED | DECRYPT) or symmetric.algorithm != alg.AES:
        raise UnsupportedError(
            "the endorsement key is not a restricted decryption key with AES", format=_FORMAT
        )
    if symmetric.mode != alg.CFB or symmetric.bits not in _AES_BITS:
        raise UnsupportedError(
            f"AES with {symmetric.bits} bits in mode {alg.algorithm_name(symmetric.mode)}; "
            "accepted is CFB with 128, 192 or 256",
            format=_FORMAT,
        )
    return symmetric.bits


def _share_seed(
    key: TpmPublic, hash_: TpmHash, random: Callable[[int], bytes]
) -> tuple[bytes, bytes]:
    material = key.public_key()
    if isinstance(material, rsa.RSAPublicKey):
        seed = random(hash_.size)
        oaep = padding.OAEP(padding.MGF1(hash_.algorithm), hash_.algorithm, b"IDENTITY\0")
        return seed, material.encrypt(seed, oaep)
    if not isinstance(material, ec.EllipticCurvePublicKey) or not isinstance(key.key, EccPublic):
        raise UnsupportedError("an endorsement key that is neither RSA nor ECC", format=_FORMAT)
    size = alg.CURVES[key.key.curve].size
    ephemeral = _ephemeral(material.curve, size, random)
    own, theirs = ephemeral.public_key().public_numbers(), material.public_numbers()
    shared = ephemeral.exchange(ec.ECDH(), material)
    x, y = own.x.to_bytes(size), own.y.to_bytes(size)
    seed = kdfe(hash_, shared, b"IDENTITY", x, theirs.x.to_bytes(size), 8 * hash_.size)
    return seed, _sized(x) + _sized(y)


def _ephemeral(
    curve: ec.EllipticCurve, size: int, random: Callable[[int], bytes]
) -> ec.EllipticCurvePrivateKey:
    # 64 bits more than the order has, so that the remainder is even to within 2**-64.
    scalar = int.from_bytes(random(size + 8)) % (curve.group_order - 1) + 1
    return ec.derive_private_key(scalar, curve)


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data
