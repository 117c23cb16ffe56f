# SPDX-License-Identifier: Apache-2.0
"""Certificates that are right until a test says otherwise, for rules that need one thing wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
TLS_USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def usage(*names: str) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in names for name in every})


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)] if name else [])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What goes into a certificate. `None` leaves an extension out."""

    subject: str = "leaf"
    units: Sequence[str] = ()
    key: object = field(default_factory=p256)
    ca: bool | None = False
    path_length: int | None = None
    usage: x509.KeyUsage | None = field(default_factory=lambda: usage("digital_signature"))
    usage_critical: bool = True
    uses: Sequence[x509.ObjectIdentifier] | None = TLS_USES
    uris: Sequence[str] = ("spiffe://example.org/web",)
    dns_names: Sequence[str] = ()
    san_critical: bool = False
    not_before: datetime = NOW - timedelta(hours=1)
    not_after: datetime = NOW + timedelta(hours=1)
    more: Sequence[tuple[x509.ExtensionType, bool]] = ()


def signing(**changes: object) -> Plan:
    values = {
        "subject": "root",
        "ca": True,
        "usage": usage("key_cert_sign", "crl_sign"),
        "uses": None,
        "uris": ("spiffe://example.org",),
    }
    return Plan(**(values | changes))


def sign(
    plan: Plan, issuer: Plan | None = None, *, with_key: object | None = None
) -> x509.Certificate:
    """Sign what is planned as `issuer`, or as itself; `with_key` signs with a stranger's key."""
    signer = issuer or plan
    subject = [*named(plan.subject)]
    subject += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, u) for u in plan.units]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(named(signer.subject))
        .public_key(plan.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(plan.not_before)
        .not_valid_after(plan.not_after)
    )
    if plan.ca is not None:
        builder = builder.add_extension(
            x509.BasicConstraints(plan.ca, plan.path_length), critical=True
        )
    if plan.usage is not None:
        builder = builder.add_extension(plan.usage, plan.usage_critical)
    if plan.uses is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(plan.uses), critical=False)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in plan.uris]
    names += [x509.DNSName(name) for name in plan.dns_names]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), plan.san_critical)
    for extension, critical in plan.more:
        builder = builder.add_extension(extension, critical)
    key = with_key or signer.key
    return builder.sign(
        key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    )
