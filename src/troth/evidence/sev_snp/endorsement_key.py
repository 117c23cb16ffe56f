# SPDX-License-Identifier: Apache-2.0
"""VCEK and VLEK: the certificate of the key that signs reports, and what AMD says about it.

A VCEK belongs to one chip at one TCB version, a VLEK to one provider at one TCB version. Both are
said in extensions under AMD's arc.

Source: AMD documents 57230 revision 0.51 (VCEK certificate and KDS interface) section 3, and
58369 revision 0.10 (VLEK certificate); for FMC_SPL the certificates of Turin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from troth.errors import DecodeError
from troth.evidence.certificates import PooledCertificate
from troth.evidence.sev_snp.fields import TcbVersion
from troth.evidence.sev_snp.report import SigningKey
from troth.identity.certificates import extensions_of

__all__ = ["COMMON_NAMES", "EndorsementKey", "common_name", "decode_endorsement_key"]

COMMON_NAMES: Final = {"SEV-VCEK": SigningKey.VCEK, "SEV-VLEK": SigningKey.VLEK}
"""Common name of the certificate to the kind of key."""

CHIP_ID_SIZE: Final = 64

_HWID_SIZES: Final = (8, CHIP_ID_SIZE)

_ARC: Final = "1.3.6.1.4.1.3704.1."
_PRODUCT_NAME: Final = f"{_ARC}2"
_HWID: Final = f"{_ARC}4"
_CSP_ID: Final = f"{_ARC}5"
_SPLS: Final = {
    "bootloader": f"{_ARC}3.1",
    "tee": f"{_ARC}3.2",
    "snp": f"{_ARC}3.3",
    "microcode": f"{_ARC}3.8",
}
_FMC_SPL: Final = f"{_ARC}3.9"
_RESERVED_SPLS: Final = tuple(f"{_ARC}3.{number}" for number in (4, 5, 6, 7))
_INTEGER, _OCTET_STRING, _IA5_STRING = 0x02, 0x04, 0x16


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementKey:
    """What one certificate says. Whether AMD said it is for the chain to show.

    Attributes:
        pooled: the certificate and where it came from.
        kind: VCEK or VLEK.
        product: product line, such as "Milan".
        tcb: TCB version that the key is derived for.
        hwid: chip that the key is derived for, as long as the chip ids of its product; b"" for a
            VLEK.
        csp_id: provider that a VLEK was given to, "" for a VCEK.
        public_key: on P-384.
    """

    pooled: PooledCertificate = field(repr=False)
    kind: SigningKey
    product: str
    tcb: TcbVersion
    hwid: bytes
    csp_id: str
    public_key: ec.EllipticCurvePublicKey = field(repr=False)

    @property
    def chip_id(self) -> bytes:
        """The chip id as a report has it: filled with zeros to 64 octets."""
        return self.hwid.ljust(CHIP_ID_SIZE, b"\0") if self.hwid else b""

    def __str__(self) -> str:
        of = f"chip {self.hwid.hex()}" if self.hwid else f"provider {self.csp_id}"
        return f"{self.kind.name} of {of} at TCB {self.tcb} ({self.pooled.source})"


def common_name(certificate: x509.Certificate) -> str:
    """Return the common name, "" where there is not exactly one, or none that can be read."""
    try:
        values = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, TypeError):
        return ""
    return str(values[0].value) if len(values) == 1 else ""


def decode_endorsement_key(pooled: PooledCertificate) -> EndorsementKey:
    """Read a certificate whose common name is one of COMMON_NAMES.

    Raises:
        DecodeError: it is not the certificate of an endorsement key.
    """
    certificate, source = pooled.certificate, pooled.source
    try:
        kind = COMMON_NAMES.get(common_name(certificate))
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise DecodeError(f"cannot be read: {exc}", format=source) from exc
    if kind is None:
        raise DecodeError("is the certificate of no VCEK or VLEK", format=source)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise DecodeError("its key is not on P-384", format=source)
    extensions = _Extensions(certificate, source)
    product = extensions.text(_PRODUCT_NAME).partition("-")[0]
    hwid, csp_id = extensions.chip(), extensions.text(_CSP_ID, required=False)
    if bool(hwid) != (kind is SigningKey.VCEK) or bool(csp_id) != (kind is SigningKey.VLEK):
        raise DecodeError(
            f"is called {kind.name}, but names {'a' if hwid else 'no'} chip and "
            f"{'a' if csp_id else 'no'} provider",
            format=source,
        )
    return EndorsementKey(
        pooled=pooled,
        kind=kind,
        product=product,
        tcb=_tcb(extensions, turin=extensions.has(_FMC_SPL)),
        hwid=hwid,
        csp_id=csp_id,
        public_key=key,
    )


def _tcb(extensions: _Extensions, *, turin: bool) -> TcbVersion:
    parts = {name: extensions.level(oid) for name, oid in _SPLS.items()}
    if turin:
        parts["fmc"] = extensions.level(_FMC_SPL)
    for oid in _RESERVED_SPLS:
        if extensions.has(oid) and extensions.level(oid):
            raise extensions.error(oid, "is a reserved level and not 0")
    return TcbVersion.of_parts(parts, turin=turin)


class _Extensions:
    """AMD's extensions of one certificate; their values are DER, with one exception."""

    def __init__(self, certificate: x509.Certificate, source: str) -> None:
        self._source = source
        self._values = {
            extension.oid.dotted_string: extension.value.value
            for extension in extensions_of(certificate, format=source)
            if isinstance(extension.value, x509.UnrecognizedExtension)
        }

    def has(self, oid: str) -> bool:
        return oid in self._values

    def error(self, oid: str, problem: str) -> DecodeError:
        return DecodeError(f"extension {oid} {problem}", format=self._source)

    def level(self, oid: str) -> int:
        """Return a security patch level, 0 to 255."""
        content = self._content(oid, _INTEGER)
        # DER: a leading zero octet only where the number would read as negative without it.
        if len(content) == 1 and content[0] < 0x80:
            return content[0]
        if len(content) == 2 and content[0] == 0 and content[1] >= 0x80:
            return content[1]
        raise self.error(oid, "is no integer from 0 to 255")

    def text(self, oid: str, *, required: bool = True) -> str:
        if not required and oid not in self._values:
            return ""
        content = self._content(oid, _IA5_STRING)
        if not content.isascii() or not content.decode().isprintable() or not content:
            raise self.error(oid, "is no printable text")
        return content.decode()

    def chip(self) -> bytes:
        """Return the HWID, or b"" where there is none."""
        value = self._values.get(_HWID)
        if value is None:
            return b""
        # The older certificates have the octets themselves, without DER around them.
        if len(value) not in _HWID_SIZES:
            value = self._content(_HWID, _OCTET_STRING)
        if len(value) not in _HWID_SIZES:
            raise self.error(_HWID, f"has {len(value)} octets; expected 8 or 64")
        return value

    def _content(self, oid: str, tag: int) -> bytes:
        value = self._values.get(oid)
        if value is None:
            raise self.error(oid, "is missing")
        # One octet of length is enough for all of them.
        if len(value) < 2 or value[0] != tag or value[1] >= 0x80 or len(value) != 2 + value[1]:
            raise self.error(oid, f"is not DER of tag {tag:#04x}")
        return value[2:]
