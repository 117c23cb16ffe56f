# SPDX-License-Identifier: Apache-2.0
"""A TPM in software, as far as attestation goes, and writers of the logs that explain its registers.

Everything that it makes is written here from the specification, so that decoders are not tested
against themselves.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from troth.evidence.tpm2 import encode
from troth.formats.tpm.algorithms import HASHES
from troth.formats.tpm.credential import kdfa, kdfe

SHA1, SHA256, SHA384, SHA512 = 4, 11, 12, 13
RSASSA, RSAPSS, ECDSA = 0x14, 0x16, 0x18
NAMES = {SHA1: "sha1", SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}
SIZES = {SHA1: 20, SHA256: 32, SHA384: 48, SHA512: 64}
AK_ATTRIBUTES = 0x00050072
EK_ATTRIBUTES = 0x000300B2
HASH_CLASSES = {SHA256: hashes.SHA256(), SHA384: hashes.SHA384(), SHA512: hashes.SHA512()}
CURVES = {"secp256r1": (3, 32), "secp384r1": (4, 48), "secp521r1": (5, 66)}


def sized(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def u16(number: int) -> bytes:
    return number.to_bytes(2)


def p256(name: str = "ak") -> ec.EllipticCurvePrivateKey:
    scalar = int.from_bytes(hashlib.sha256(f"tpm {name}".encode()).digest()) >> 1
    return ec.derive_private_key(scalar, ec.SECP256R1())


def public_area(
    key: Any,
    *,
    attributes: int = AK_ATTRIBUTES,
    scheme: tuple[int, int] | None = None,
    name_algorithm: int = SHA256,
    policy: bytes = b"",
    storage: bool = False,
) -> bytes:
    """Return a TPMT_PUBLIC."""
    rsa_key = isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey)
    public = key.public_key() if hasattr(key, "public_key") else key
    symmetric = bytes.fromhex("000600800043") if storage else bytes.fromhex("0010")
    if scheme is None and not storage:
        scheme = (RSASSA if rsa_key else ECDSA, SHA256)
    schemed = u16(scheme[0]) + u16(scheme[1]) if scheme else bytes.fromhex("0010")
    head = u16(1 if rsa_key else 0x23) + u16(name_algorithm) + attributes.to_bytes(4)
    head += sized(policy) + symmetric + schemed
    numbers = public.public_numbers()
    if rsa_key:
        modulus = numbers.n.to_bytes(public.key_size // 8)
        return head + u16(public.key_size) + bytes(4) + sized(modulus)
    number, size = CURVES[public.curve.name]
    point = sized(numbers.x.to_bytes(size)) + sized(numbers.y.to_bytes(size))
    return head + u16(number) + bytes.fromhex("0010") + point


def name_of(public: bytes) -> bytes:
    return public[2:4] + hashlib.new(NAMES[int.from_bytes(public[2:4])], public).digest()


def selection_of(selection: Mapping[int, Sequence[int]]) -> bytes:
    found = len(selection).to_bytes(4)
    for bank, registers in selection.items():
        bitmap = sum(1 << register for register in registers)
        found += u16(bank) + b"\x03" + bitmap.to_bytes(3, "little")
    return found


@dataclass
class SoftwareTpm:
    """Registers, counters and an attestation key."""

    key: Any = field(default_factory=p256)
    endorsement: Any = field(default_factory=lambda: p256("ek"))
    scheme: int = 0
    hash: int = SHA256
    attributes: int = AK_ATTRIBUTES
    banks: Sequence[int] = (SHA256,)
    reset_count: int = 7
    restart_count: int = 1
    registers: dict[int, dict[int, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.scheme:
            self.scheme = RSASSA if isinstance(self.key, rsa.RSAPrivateKey) else ECDSA
        for bank in self.banks:
            size = SIZES[bank]
            self.registers[bank] = {
                pcr: (b"\xff" if 17 <= pcr <= 22 else b"\0") * size for pcr in range(24)
            }

    @property
    def public(self) -> bytes:
        return public_area(self.key, attributes=self.attributes, scheme=(self.scheme, self.hash))

    @property
    def name(self) -> bytes:
        return name_of(self.public)

    @property
    def pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def endorsement_public(self) -> bytes:
        return public_area(self.endorsement, attributes=EK_ATTRIBUTES, storage=True)

    def extend(self, pcr: int, digests: Mapping[int, bytes]) -> None:
        for bank, digest in digests.items():
            if bank in self.registers:
                own = self.registers[bank]
                own[pcr] = hashlib.new(NAMES[bank], own[pcr] + digest).digest()

    def measure(self, pcr: int, data: bytes) -> None:
        self.extend(pcr, {bank: hashlib.new(NAMES[bank], data).digest() for bank in self.registers})

    def values(self, selection: Mapping[int, Sequence[int]]) -> bytes:
        return b"".join(
            self.registers[bank][pcr] for bank, pcrs in selection.items() for pcr in sorted(pcrs)
        )

    def attest(self, kind: int, extra: bytes, attested: bytes) -> bytes:
        clock = (123_456).to_bytes(8) + self.reset_count.to_bytes(4)
        clock += self.restart_count.to_bytes(4) + b"\x01"
        signer = sized(u16(SHA256) + hashlib.sha256(b"parent" + self.name).digest())
        return b"\xffTCG" + u16(kind) + signer + sized(extra) + clock + bytes(8) + attested

    def quote(self, extra: bytes, selection: Mapping[int, Sequence[int]]) -> bytes:
        digest = hashlib.new(NAMES[self.hash], self.values(selection)).digest()
        return self.attest(0x8018, extra, selection_of(selection) + sized(digest))

    def sign(self, data: bytes) -> bytes:
        hash_ = HASH_CLASSES[self.hash]
        head = u16(self.scheme) + u16(self.hash)
        if self.scheme == ECDSA:
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hash_)))
            size = CURVES[self.key.curve.name][1]
            return head + sized(r.to_bytes(size)) + sized(s.to_bytes(size))
        if self.scheme == RSAPSS:
            pad: Any = padding.PSS(padding.MGF1(hash_), padding.PSS.MAX_LENGTH)
        else:
            pad = padding.PKCS1v15()
        return head + sized(self.key.sign(data, pad, hash_))

    def evidence(
        self, challenge: bytes, selection: Mapping[int, Sequence[int]] | None = None, **parts: Any
    ) -> bytes:
        """Return Evidence in Troth's form; `parts` replace what it holds."""
        chosen = selection or {SHA256: range(10)}
        quote = parts.pop("quote", None) or self.quote(challenge, chosen)
        given = {
            "quote": quote,
            "signature": self.sign(quote),
            "pcr_values": self.values(chosen),
            "attestation_key": self.public,
        }
        return encode(**{**given, **parts})

    def activate(self, id_object: bytes, encrypted_seed: bytes, name: bytes) -> bytes:
        """Do what TPM2_ActivateCredential does; raises ValueError where the TPM would refuse."""
        sha256 = HASHES[SHA256]
        if isinstance(self.endorsement, rsa.RSAPrivateKey):
            oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
            seed = self.endorsement.decrypt(encrypted_seed, oaep)
        else:
            curve, size = self.endorsement.curve, CURVES[self.endorsement.curve.name][1]
            x, y = encrypted_seed[2 : 2 + size], encrypted_seed[4 + size :]
            point = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)
            shared = self.endorsement.exchange(ec.ECDH(), point)
            own = self.endorsement.public_key().public_numbers().x.to_bytes(size)
            seed = kdfe(sha256, shared, b"IDENTITY", x, own, 256)
        integrity, identity = id_object[2:34], id_object[34:]
        key = kdfa(sha256, seed, b"INTEGRITY", b"", b"", 256)
        if not hmac.compare_digest(hmac.digest(key, identity + name, "sha256"), integrity):
            raise ValueError("TPM_RC_INTEGRITY")
        cipher = Cipher(
            algorithms.AES(kdfa(sha256, seed, b"STORAGE", name, b"", 128)), CFB(bytes(16))
        )
        secret = cipher.decryptor().update(identity)
        return secret[2 : 2 + int.from_bytes(secret[:2])]


@dataclass
class BootLog:
    """Writes a crypto-agile event log, and extends a TPM by it."""

    banks: Sequence[int] = (SHA256,)
    tpm: SoftwareTpm | None = None
    data: bytes = b""

    def __post_init__(self) -> None:
        spec = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(self.banks))
        spec += b"".join(struct.pack("<HH", bank, SIZES[bank]) for bank in self.banks) + b"\0"
        self.data = struct.pack("<II20sI", 0, 3, bytes(20), len(spec)) + spec

    def add(self, pcr: int, kind: int, data: bytes, measured: bytes | None = None) -> None:
        """Add one event that measures `measured`, by default its data."""
        what = data if measured is None else measured
        digests = {bank: hashlib.new(NAMES[bank], what).digest() for bank in self.banks}
        if kind == 3:
            digests = {bank: bytes(SIZES[bank]) for bank in self.banks}
        elif self.tpm is not None:
            self.tpm.extend(pcr, digests)
        self.data += struct.pack("<III", pcr, kind, len(digests))
        self.data += b"".join(struct.pack("<H", bank) + each for bank, each in digests.items())
        self.data += struct.pack("<I", len(data)) + data

    def add_variable(self, name: str, value: bytes, *, kind: int = 0x80000001) -> None:
        guid = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
        text = name.encode("utf-16-le")
        self.add(7, kind, guid + struct.pack("<QQ", len(name), len(value)) + text + value)

    def add_grub(self, command: str) -> None:
        self.add(8, 0x0D, b"grub_cmd: " + command.encode() + b"\0", command.encode())

    def add_file(self, path: str, content: bytes) -> None:
        self.add(9, 0x0D, path.encode() + b"\0", content)

    def boot(self, *, secure: bool = True, kernel: bytes = b"kernel", command: str = "") -> None:
        """Add what a Linux host with UEFI and GRUB measures, in short."""
        self.add(0, 0x08, "firmware 1.0\0".encode("utf-16-le"))
        self.add_variable("SecureBoot", b"\x01" if secure else b"\x00")
        self.add_variable("PK", b"platform key certificate")
        self.add(7, 4, bytes(4))
        self.add(4, 0x80000007, b"Calling EFI Application from Boot Option")
        for pcr in range(7):
            self.add(pcr, 4, bytes(4))
        self.add(4, 0x80000003, image_load("\\EFI\\debian\\grubx64.efi"), b"authenticode of grub")
        self.add_grub(command or "linux /vmlinuz ro quiet")
        self.add_file("/vmlinuz", kernel)
        self.add(5, 0x80000007, b"Exit Boot Services Invocation")


def image_load(path: str) -> bytes:
    text = path.encode("utf-16-le") + bytes(2)
    node = struct.pack("<BBH", 4, 4, 4 + len(text)) + text + b"\x7f\xff\x04\x00"
    return struct.pack("<QQQQ", 0x1000, 0x2000, 0, len(node)) + node


@dataclass
class FileLog:
    """Writes an IMA log in both encodings, and extends a TPM by it."""

    tpm: SoftwareTpm | None = None
    template: str = "ima-ng"
    ascii: bytes = b""
    binary: bytes = b""

    def add(
        self,
        path: str,
        content: bytes,
        *,
        signature: bytes = b"",
        violation: bool = False,
        digest: bytes | None = None,
    ) -> None:
        """Add one file."""
        name = self.template.encode()
        raw = path.encode()
        if self.template == "ima":
            value = digest or hashlib.sha1(content, usedforsecurity=False).digest()
            data = value + raw.ljust(256, b"\0")
            shown = value.hex().encode()
            body = value + struct.pack("<I", len(raw)) + raw
        else:
            value = digest or hashlib.sha256(content).digest()
            fields = [b"sha256:\0" + value, raw + b"\0"]
            if self.template == "ima-sig":
                fields.append(signature)
            data = b"".join(struct.pack("<I", len(each)) + each for each in fields)
            shown = b"sha256:" + value.hex().encode()
            body = struct.pack("<I", len(data)) + data
        sha1 = hashlib.sha1(data, usedforsecurity=False).digest()
        head = bytes(20) if violation else sha1
        line = [b"10", head.hex().encode(), name, shown, raw]
        if self.template == "ima-sig":
            line.append(signature.hex().encode())
        self.ascii += b" ".join(line) + b"\n"
        self.binary += struct.pack("<I20sI", 10, head, len(name)) + name + body
        if self.tpm is not None:
            self.tpm.extend(
                10,
                {
                    bank: b"\xff" * SIZES[bank]
                    if violation
                    else hashlib.new(NAMES[bank], data).digest()
                    for bank in self.tpm.registers
                },
            )

    def add_aggregate(self, tpm: SoftwareTpm) -> None:
        """Add the first entry: a hash over the boot's registers."""
        registers = tpm.registers[SHA256]
        digest = hashlib.sha256(b"".join(registers[pcr] for pcr in range(10))).digest()
        self.add("boot_aggregate", b"", digest=digest)
