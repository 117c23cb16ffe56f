# SPDX-License-Identifier: Apache-2.0
"""From an endorsement key to AMD's root: VCEK to ASK to ARK, or VLEK to ASVK to ARK.

The rules, whose numbers the code wears:

1. the certificates that could be the intermediate and the root are those of the right names;
2. the root is a trust anchor of the operator, or one that AMD publishes, if AMD is believed;
3. each certificate is signed by the next, the root by itself: RSASSA-PSS with SHA-384, 4096 bits;
4. intermediate and root may sign certificates, the endorsement key may not;
5. all are valid at the time in question, and all are of one product;
6. the newest revocation list of the root, if there is any, does not name the intermediate.

A list is signed by the root and covers intermediates only: AMD revokes no single chip. A list that
has passed its next update still revokes what it names; that it is old is for the appraisal to say.

Source: AMD document 57230 revision 0.51 sections 3 and 4; RFC 5280 sections 6.1 and 6.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from troth.errors import ChainError, CollateralError, DecodeError
from troth.evidence.certificates import (
    PooledCertificate,
    PooledRevocationList,
    VendorDocuments,
)
from troth.evidence.sev_snp.endorsement_key import EndorsementKey, common_name
from troth.evidence.sev_snp.report import SigningKey
from troth.identity.certificates import extensions_of

__all__ = ["MAX_CHAINS", "CertifiedKey", "Revocation", "certify"]

MAX_CHAINS: Final = 16
"""Pairs of intermediate and root that are tried for one endorsement key."""

_INTERMEDIATE: Final = {SigningKey.VCEK: "SEV-", SigningKey.VLEK: "SEV-VLEK-"}
_ROOT: Final = "ARK-"
_RSA_BITS: Final = 4096
_EVER: Final = datetime.min.replace(tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Revocation:
    """What a revocation list said of the intermediate: that it is not revoked.

    Attributes:
        source: where the list came from.
        this_update: when the root made it.
        next_update: when the root promised a newer one, or None.
    """

    source: str
    this_update: datetime
    next_update: datetime | None

    def state(self, now: datetime, grace: timedelta) -> str:
        """Return "current", or, where a newer list is due, "grace" and after it "stale"."""
        if self.next_update is None:
            return "stale"
        if now <= self.next_update:
            return "current"
        return "grace" if now - self.next_update <= grace else "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedKey:
    """An endorsement key that AMD vouches for. Only `certify` makes one.

    Attributes:
        key: the key and what its certificate says.
        root: SHA-256 of the root certificate, lower-case hex.
        root_name: the root's subject, for people.
        not_before, not_after: when all certificates of the chain are valid.
        revocation: what a list said, or None where there was none.
        lists_from, lists_until: between which times the same list is the newest one.
    """

    key: EndorsementKey
    root: str
    root_name: x509.Name = field(repr=False)
    not_before: datetime
    not_after: datetime
    revocation: Revocation | None
    lists_from: datetime
    lists_until: datetime

    def holds_for(self, now: datetime) -> bool:
        """Say whether what was found about revocation would be found at this time as well."""
        return self.lists_from <= now < self.lists_until

    def check_time(self, now: datetime) -> None:
        """Refuse a chain that is not valid now.

        Raises:
            ChainError: too early or too late.
        """
        if not self.not_before <= now <= self.not_after:
            raise ChainError(
                f"the certificates of the {self.key} are valid from {self.not_before:%Y-%m-%d} to "
                f"{self.not_after:%Y-%m-%d}, not on {now:%Y-%m-%d}",
                remedy="Have the host fetch a newer certificate, or correct the clock. For "
                "recorded Evidence, give the time that it is from.",
            )


def certify(
    key: EndorsementKey,
    documents: VendorDocuments,
    *,
    now: datetime,
    is_anchor: Callable[[x509.Certificate], bool],
) -> CertifiedKey:
    """Return the key with the chain that vouches for it.

    Does not check that the key belongs to any report.

    Args:
        key: the endorsement key.
        documents: certificates and revocation lists, from wherever.
        now: when the chain has to be valid.
        is_anchor: says whether a root certificate is one that the operator believes.

    Raises:
        ChainError: a chain does not hold, or its root is not believed.
        CollateralError: there is no intermediate or no root to build one with.
    """
    intermediates = _named(documents, f"{_INTERMEDIATE[key.kind]}{key.product}")  # (1)
    roots = _named(documents, f"{_ROOT}{key.product}")
    _require(key, intermediates, roots)
    believed = [root for root in roots if is_anchor(root.certificate)]  # (2)
    if not believed:
        names = ", ".join(f"{root.source}: {root.digest.hex()}" for root in roots)
        raise ChainError(
            f"no {_ROOT}{key.product} certificate is a trust anchor (SHA-256 of those at hand: "
            f"{names})",
            remedy="Provision AMD's root as a trust anchor, or say that AMD's published roots are "
            "believed (--trust-vendor amd). A root that came with the Evidence proves nothing.",
        )
    refusals: list[ChainError] = []
    for intermediate, root in islice(product(intermediates, believed), MAX_CHAINS):
        try:
            return _chain(key, intermediate, root, documents, now=now)
        except ChainError as exc:
            refusals.append(exc)
    reasons = "; ".join(str(refusal) for refusal in refusals)
    raise ChainError(
        f"no chain from the {key} to AMD's root holds: {reasons}", remedy=refusals[-1].remedy
    ) from refusals[-1]


def _named(documents: VendorDocuments, name: str) -> list[PooledCertificate]:
    return [pooled for pooled in documents.certificates if common_name(pooled.certificate) == name]


def _require(
    key: EndorsementKey,
    intermediates: Sequence[PooledCertificate],
    roots: Sequence[PooledCertificate],
) -> None:
    missing = [] if intermediates else [f"{_INTERMEDIATE[key.kind]}{key.product} (ASK or ASVK)"]
    missing += [] if roots else [f"{_ROOT}{key.product} (ARK)"]
    if missing:
        raise CollateralError(
            f"no certificate {' and none '.join(missing)} to check the {key.kind.name} with",
            remedy="Put AMD's certificate chain of this product (KDS path "
            f"/{key.kind.value}/v1/{key.product}/cert_chain) into the collateral.",
            vendor="amd",
        )


def _chain(
    key: EndorsementKey,
    intermediate: PooledCertificate,
    root: PooledCertificate,
    documents: VendorDocuments,
    *,
    now: datetime,
) -> CertifiedKey:
    leaf = key.pooled
    for certificate, issuer in ((root, root), (intermediate, root), (leaf, intermediate)):
        _check_signed(certificate, issuer)  # (3)
    _check_authority(root, signs=True)  # (4)
    _check_authority(intermediate, signs=True)
    _check_authority(leaf, signs=False)
    chain = [each.certificate for each in (leaf, intermediate, root)]
    lists = _lists_of(root.certificate, documents)  # (6)
    made = [each.revocation_list.last_update_utc for each in lists]
    certified = CertifiedKey(
        key=key,
        root=root.digest.hex(),
        root_name=root.certificate.subject,
        not_before=max(each.not_valid_before_utc for each in chain),
        not_after=min(each.not_valid_after_utc for each in chain),
        revocation=_revocation(intermediate, lists, now),
        lists_from=max((each for each in made if each <= now), default=_EVER),
        lists_until=min((each for each in made if each > now), default=_NEVER),
    )
    certified.check_time(now)  # (5)
    return certified


def _check_signed(pooled: PooledCertificate, issuer: PooledCertificate) -> None:
    certificate, signer = pooled.certificate, issuer.certificate
    try:
        _check_algorithm(certificate.signature_algorithm_oid, pooled.source)
        parameters = certificate.signature_algorithm_parameters
        digest = certificate.signature_hash_algorithm
        key = signer.public_key()
        certificate.verify_directly_issued_by(signer)
    except InvalidSignature as exc:
        raise ChainError(
            f"{pooled.source} is not signed by {issuer.source}",
            remedy="The certificate was changed, or belongs to another generation of chips.",
        ) from exc
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ChainError(f"{pooled.source} is not issued by {issuer.source}: {exc}") from exc
    if (
        not isinstance(parameters, padding.PSS)
        or not isinstance(digest, hashes.SHA384)
        or not isinstance(key, rsa.RSAPublicKey)
        or key.key_size != _RSA_BITS
    ):
        raise ChainError(
            f"{pooled.source} is not signed with RSASSA-PSS, SHA-384 and {_RSA_BITS} bits"
        )


def _check_algorithm(oid: x509.ObjectIdentifier, source: str) -> None:
    if oid != SignatureAlgorithmOID.RSASSA_PSS:
        raise ChainError(f"{source} is signed with {oid.dotted_string}; AMD uses RSASSA-PSS")


def _check_authority(pooled: PooledCertificate, *, signs: bool) -> None:
    try:
        extensions = list(extensions_of(pooled.certificate, format=pooled.source))
    except DecodeError as exc:
        raise ChainError(str(exc)) from exc
    values = [extension.value for extension in extensions]
    may_sign = any(isinstance(each, x509.BasicConstraints) and each.ca for each in values) and any(
        isinstance(each, x509.KeyUsage) and each.key_cert_sign for each in values
    )
    if may_sign != signs:
        word = "may not sign certificates" if signs else "may sign certificates"
        raise ChainError(f"{pooled.source} {word}")
    for extension in extensions:
        if extension.critical and not isinstance(
            extension.value, x509.BasicConstraints | x509.KeyUsage
        ):
            raise ChainError(
                f"{pooled.source}: critical extension {extension.oid.dotted_string} is not known"
            )


def _revocation(
    intermediate: PooledCertificate, lists: Sequence[PooledRevocationList], now: datetime
) -> Revocation | None:
    made = [each for each in lists if each.revocation_list.last_update_utc <= now]
    if not made:
        return None
    newest = max(made, key=lambda each: each.revocation_list.last_update_utc)
    found, number = newest.revocation_list, intermediate.certificate.serial_number
    if found.get_revoked_certificate_by_serial_number(number) is not None:
        raise ChainError(
            f"AMD has revoked {common_name(intermediate.certificate)} "
            f"({intermediate.source}), says the revocation list {newest.source}",
            remedy="Nothing that this intermediate vouches for counts any more: the host needs "
            "certificates of a newer one.",
        )
    return Revocation(newest.source, found.last_update_utc, found.next_update_utc)


def _lists_of(root: x509.Certificate, documents: VendorDocuments) -> list[PooledRevocationList]:
    return [each for each in documents.revocation_lists if _is_list_of(each, root)]


def _is_list_of(pooled: PooledRevocationList, root: x509.Certificate) -> bool:
    """Say whether the root made this list; others may be of other products, or forged."""
    key = root.public_key()
    try:
        return (
            pooled.issuer == root.subject
            and isinstance(key, rsa.RSAPublicKey)
            and pooled.revocation_list.is_signature_valid(key)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
