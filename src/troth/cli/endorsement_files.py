# SPDX-License-Identifier: Apache-2.0
"""What an operator's files endorse: keys, root certificates and CoRIMs, for one command's run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from troth.cli.inputs import read_certificates, read_keys, read_operator_file
from troth.endorsement.endorsements import endorsements_of
from troth.endorsement.reference_value import ReferenceValue
from troth.endorsement.repository import EndorsementSnapshot, Phase
from troth.endorsement.store import EndorsementStore
from troth.endorsement.trust_anchor import TrustAnchor
from troth.errors import ConfigurationError, FreshnessError, TrothError
from troth.formats.corim.corim import Corim
from troth.formats.corim.signed import SignedCorim, VerifiedCorim, decode_any
from troth.formats.keys import VerificationKey
from troth.verifier.finding import Finding
from troth.verifier.verifier import AUTO

__all__ = ["LAPSED", "OperatorEndorsements", "read_endorsements"]

LAPSED: Final = "not in force at this time"
"""How a remark begins about a file that plays no part because of its validity."""


@dataclass(frozen=True, slots=True)
class _OperatorSnapshot:
    """What CoRIMs endorse, and keys that the operator believes whoever carries them."""

    endorsed: EndorsementSnapshot
    anchors: Sequence[VerificationKey]
    roots: Sequence[x509.Certificate]
    classes: Sequence[bytes]

    @property
    def epoch(self) -> str:
        return self.endorsed.epoch

    def find(
        self, scheme: str, *, class_id: bytes, instance_id: bytes = b""
    ) -> Sequence[ReferenceValue]:
        found = self.endorsed.find(scheme, class_id=class_id, instance_id=instance_id)
        if found or class_id:
            return found
        # Evidence that does not say its class, of a key that no file says the class of: what is
        # given beside it is meant for it.
        return [
            value
            for each in self.classes
            for value in self.endorsed.find(scheme, class_id=each, instance_id=instance_id)
        ]

    def trust_anchors(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[TrustAnchor]:
        return self.endorsed.trust_anchors(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        endorsed = self.endorsed.keys(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )
        return [*self.anchors, *endorsed]

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        return [*self.roots, *self.endorsed.certificates(scheme)]


@dataclass(frozen=True, slots=True)
class OperatorEndorsements:
    """An `EndorsementSource` over what was read."""

    store: EndorsementStore
    anchors: Sequence[VerificationKey]
    roots: Sequence[x509.Certificate]
    classes: Sequence[bytes] = ()

    def snapshot(self, now: datetime) -> EndorsementSnapshot:
        """Return the set in force at `now`."""
        snapshot = self.store.snapshot(now)
        return _OperatorSnapshot(snapshot, self.anchors, self.roots, self.classes)


def read_endorsements(
    trust_anchors: Sequence[str],
    reference_values: Sequence[str],
    corim_keys: Sequence[str],
    *,
    now: datetime,
    scheme: str,
) -> tuple[OperatorEndorsements, list[Finding]]:
    """Return what the operator's files endorse, and what is to be said about them.

    Args:
        trust_anchors: files with keys believed for every instance, or root certificates.
        reference_values: CoRIM files; unsigned ones are taken as the operator's own.
        corim_keys: files with keys that signed ones must verify under.
        now: timezone-aware.
        scheme: the scheme that a CoRIM without a profile is about, or AUTO.

    Raises:
        ConfigurationError: a file cannot be read, or is not what it should be.
    """
    anchors = [key for path in trust_anchors for key in read_keys(path)]
    roots = [root for path in trust_anchors for root in read_certificates(path)]
    signers = [key for path in corim_keys for key in read_keys(path)]
    store = EndorsementStore()
    remarks: list[Finding] = []
    classes: dict[bytes, None] = {}
    for path in reference_values:
        try:
            found = _provision(store, path, signers, classes, now=now, scheme=scheme)
        except ConfigurationError:
            raise
        except FreshnessError as exc:
            remarks.append(_remark(path, f"{LAPSED}: {exc}", exc.remedy))
        except TrothError as exc:
            remedy = f" {exc.remedy}" if exc.remedy else ""
            raise ConfigurationError(source=path, accepted=f"a CoRIM: {exc}.{remedy}") from exc
        else:
            remarks += [_remark(path, unused, "Nothing, if it is not needed.") for unused in found]
    return OperatorEndorsements(store, anchors, roots, tuple(classes)), remarks


def _remark(path: str, actual: str, remedy: str) -> Finding:
    return Finding(
        claim=path,
        expected="Endorsements that take part in the appraisal",
        actual=actual,
        rule="--reference-values",
        remedy=remedy,
        severity="note",
    )


def _provision(
    store: EndorsementStore,
    path: str,
    signers: Sequence[VerificationKey],
    classes: dict[bytes, None],
    *,
    now: datetime,
    scheme: str,
) -> list[str]:
    """Take in one CoRIM, add its classes, and return what of it plays no part, in sentences."""
    decoded = decode_any(read_operator_file(path))
    corim: Corim | VerifiedCorim
    if isinstance(decoded, SignedCorim):
        if not signers:
            raise ConfigurationError(
                source=path, accepted="--corim-key FILE beside it: this CoRIM is signed"
            )
        corim = decoded.verify(signers, now=now)
        profile = corim.corim.profile
    else:
        corim, profile = decoded, decoded.profile
    stated = scheme if profile is None and scheme != AUTO else ""
    provisioned = store.provision(corim, now=now, source=path, scheme=stated)
    endorsed = endorsements_of(
        corim.corim if isinstance(corim, VerifiedCorim) else corim, source=path, scheme=stated
    )
    classes.update((each.environment.class_id, None) for each in endorsed.reference_values)
    classes.pop(b"", None)
    unused = list(provisioned.unused)
    phase = next(each.phase for each in store.list(now=now) if each.id == provisioned.id)
    if phase is Phase.PENDING:
        unused.append(f"{LAPSED}: its validity has not begun")
    return unused
