# SPDX-License-Identifier: Apache-2.0
"""Appraisal with Endorsements that are fetched when Evidence needs them.

Theory of operation. An appraisal reads one snapshot, which never changes under it. The snapshot
here also writes down what it was asked for and had nothing about. If that can be had from
upstream, it is fetched into a store and the whole appraisal is done again, on the next snapshot;
so a verdict, and the epoch that it is remembered under, always belong to one set. Upstream is
asked for what is not provisioned here, never instead of it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Final, Protocol

from cryptography import x509

from troth.endorsement.coserv import corim_from_answer
from troth.endorsement.profiles import generic_uri
from troth.endorsement.profiles.cca import CCA_PLATFORM, CCA_REALM
from troth.endorsement.profiles.psa import PSA
from troth.endorsement.reference_value import ReferenceValue
from troth.endorsement.repository import EndorsementSnapshot
from troth.endorsement.store import EndorsementStore
from troth.endorsement.trust_anchor import TrustAnchor
from troth.errors import TrothError, UnavailableError, UnsupportedError, VerificationError
from troth.evidence import registry
from troth.formats.ar4si import TrustTier
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.environment import EnvironmentClass
from troth.formats.coserv import ArtifactType, Coserv, EnvironmentQuery, Selection
from troth.formats.verification_key import VerificationKey
from troth.verifier.background_check import AUTO
from troth.verifier.conclusion import Judgement
from troth.verifier.result import AttestationResult
from troth.verifier.verifier import EndorsementSource, Verifier

__all__ = [
    "MAX_FETCHES_PER_SECOND",
    "CoservSource",
    "FetchedEndorsements",
    "FetchingVerifier",
]

_LOG = logging.getLogger(__name__)
_MAX_ROUNDS: Final = 4
"""Keys, then the values of the class, then those of what runs on it; one more for what changed."""
_NOTHING_KNOWN: Final = timedelta(minutes=1)
"""How long upstream is not asked again for what it does not have, or cannot tell."""
_MAX_KNOWN: Final = 100_000

MAX_FETCHES_PER_SECOND: Final = 100
"""Questions to upstream. Evidence names what is asked for before its signature is verified."""

# Which profiles may have something about a scheme.
_PROFILES: Final[Mapping[str, Sequence[str]]] = {
    "psa": (PSA.uri,),
    "cca": (CCA_PLATFORM.uri, CCA_REALM.uri),
}
_WITHOUT_KEYS: Final = frozenset({CCA_REALM.uri})


class CoservSource(Protocol):
    """A CoSERV service, such as `CoservClient`."""

    def signed_answer(self, query: Coserv, *, now: datetime) -> tuple[bytes, Coserv]:
        """Return its answer as it was signed, and decoded."""
        ...


@dataclass(frozen=True, slots=True)
class _Need:
    """Something that a snapshot was asked for."""

    scheme: str
    artifact: ArtifactType
    identifier: bytes

    def queries(self) -> list[Coserv]:
        keys = self.artifact is ArtifactType.TRUST_ANCHORS
        profiles = _PROFILES.get(self.scheme) or (generic_uri(self.scheme),)
        return [
            Coserv(profile=profile, query=self._query(keys=keys))
            for profile in profiles
            if not (keys and profile in _WITHOUT_KEYS)
        ]

    def _query(self, *, keys: bool) -> EnvironmentQuery:
        if keys:
            tag = tags.UEID if self.scheme in _PROFILES else tags.BYTES
            instance = Selection(Tag(tag, self.identifier))
            return EnvironmentQuery(artifact=self.artifact, instances=(instance,))
        named = EnvironmentClass(class_id=Tag(tags.BYTES, self.identifier))
        return EnvironmentQuery(artifact=self.artifact, classes=(Selection(named),))


class FetchedEndorsements:
    """What upstream has said, as far as it is in force. Methods block; any thread.

    Args:
        source: upstream.
    """

    def __init__(self, source: CoservSource) -> None:
        self._source = source
        self._store = EndorsementStore()
        self._known: dict[_Need, datetime] = {}
        self._digests: dict[str, bytes] = {}
        self._ids: dict[str, str] = {}
        self._second, self._spent = 0, 0
        self._lock = Lock()

    def snapshot(self, now: datetime) -> EndorsementSnapshot:
        """Return what is in force at `now`."""
        return self._store.snapshot(now)

    def is_known(self, need: _Need, now: datetime) -> bool:
        """Say whether upstream need not be asked for this now."""
        until = self._known.get(need)
        return until is not None and now < until

    def fetch(self, need: _Need, now: datetime) -> None:
        """Ask upstream, and take in what it says.

        Raises:
            UnavailableError: it cannot be told.
            TrothError: what it says cannot be believed.
        """
        self._spend(now)
        until = now + _NOTHING_KNOWN
        found = []
        for query in need.queries():
            try:
                raw, answer = self._source.signed_answer(query, now=now)
            except UnsupportedError as exc:
                _LOG.info("upstream: %s", exc)
                continue
            if answer.results is not None:
                found.append(answer.results.expiry)
            self._take_in(query, raw, answer, now)
        with self._lock:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            # The client keeps answers and knows when to ask again; here a while is enough.
            self._known[need] = min([until, *found])

    def _spend(self, now: datetime) -> None:
        with self._lock:
            second = int(now.timestamp())
            if second != self._second:
                self._second, self._spent = second, 0
            self._spent += 1
            if self._spent > MAX_FETCHES_PER_SECOND:
                raise UnavailableError(
                    f"more than MAX_FETCHES_PER_SECOND={MAX_FETCHES_PER_SECOND}",
                    retry_after_seconds=1.0,
                )

    def _take_in(self, query: Coserv, raw: bytes, answer: Coserv, now: datetime) -> None:
        digest = hashlib.sha256(raw).digest()
        name = hashlib.sha256(query.encode()).hexdigest()
        with self._lock:
            if self._digests.get(name) == digest:
                return
            try:
                corim = corim_from_answer(answer, query, now=now)
            except UnsupportedError:  # empty: what it said before is said no more
                self._withdraw(name, now)
                self._digests[name] = digest
                return
            self._withdraw(name, now)
            provisioned = self._store.provision(corim, now=now, source="CoSERV", reinstate=True)
            self._digests[name] = digest
            self._ids[name] = provisioned.id

    def _withdraw(self, name: str, now: datetime) -> None:
        identifier = self._ids.pop(name, None)
        if identifier is not None:
            self._store.withdraw(identifier, now=now)


@dataclass(frozen=True, slots=True)
class _View:
    """Provisioned and fetched Endorsements as one set, with a list of what was not in it."""

    local: EndorsementSource
    fetched: FetchedEndorsements
    needs: dict[_Need, None] = field(default_factory=dict)

    def snapshot(self, now: datetime) -> _Snapshot:
        return _Snapshot(self.local.snapshot(now), self.fetched.snapshot(now), self.needs)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    local: EndorsementSnapshot
    fetched: EndorsementSnapshot
    needs: dict[_Need, None]

    @property
    def epoch(self) -> str:
        return hashlib.sha256(f"{self.local.epoch}+{self.fetched.epoch}".encode()).hexdigest()

    def find(
        self, scheme: str, *, class_id: bytes, instance_id: bytes = b""
    ) -> Sequence[ReferenceValue]:
        found = self.local.find(scheme, class_id=class_id, instance_id=instance_id)
        if found:
            return found
        if class_id:
            self.needs[_Need(scheme, ArtifactType.REFERENCE_VALUES, class_id)] = None
        return self.fetched.find(scheme, class_id=class_id, instance_id=instance_id)

    def trust_anchors(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[TrustAnchor]:
        found = self.local.trust_anchors(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )
        if found:
            return found
        if instance_id:
            self.needs[_Need(scheme, ArtifactType.TRUST_ANCHORS, instance_id)] = None
        return self.fetched.trust_anchors(
            scheme, implementation_id=implementation_id, instance_id=instance_id
        )

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        return [
            anchor.verification_key()
            for anchor in self.trust_anchors(
                scheme, implementation_id=implementation_id, instance_id=instance_id
            )
            if anchor.public_key
        ]

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        return self.local.certificates(scheme)


class FetchingVerifier:
    """A Verifier whose missing Endorsements are fetched; a `BackgroundCheck`.

    Args:
        verifier: appraises; its endorsements are what is provisioned here.
        fetched: what upstream says.
    """

    def __init__(self, verifier: Verifier, fetched: FetchedEndorsements) -> None:
        self._verifier, self._fetched = verifier, fetched

    @property
    def schemes(self) -> Mapping[str, registry.Loader]:
        """The schemes that it takes."""
        return self._verifier.schemes

    def failure(
        self, error: TrothError, *, scheme: str, now: datetime, nonce: bytes | None = None
    ) -> AttestationResult:
        """Return the result of an appraisal that did not come about."""
        return self._verifier.failure(error, scheme=scheme, now=now, nonce=nonce)

    def appraise(
        self,
        evidence: bytes,
        *,
        now: datetime,
        challenge: bytes,
        scheme: str = AUTO,
        media_type: str = "",
        nonce: bytes | None = None,
        key: bytes | None = None,
        received: datetime | None = None,
        observe: Callable[[Judgement], None] | None = None,
    ) -> AttestationResult:
        """Return what this Evidence is worth; see `BackgroundCheck`.

        Raises:
            UnavailableError: upstream cannot be reached, and what it might have said is missing.
        """
        refusal: VerificationError | None = None
        result: AttestationResult | None = None
        missing: UnavailableError | None = None
        tried: set[_Need] = set()
        for _ in range(_MAX_ROUNDS):
            view = _View(self._verifier.endorsements, self._fetched)
            refusal, result = None, None
            try:
                result = replace(self._verifier, endorsements=view).appraise(
                    evidence,
                    now=now,
                    challenge=challenge,
                    scheme=scheme,
                    media_type=media_type,
                    nonce=nonce,
                    key=key,
                    received=received,
                    observe=observe,
                )
            except VerificationError as exc:
                refusal = exc
            needs = [
                need
                for need in view.needs
                if need not in tried and not self._fetched.is_known(need, now)
            ]
            if not needs:
                break
            tried.update(needs)
            missing = self._fetch(needs, now) or missing
        if missing is not None and (result is None or result.status is not TrustTier.AFFIRMING):
            raise missing
        if result is None:
            raise refusal or UnavailableError("the Endorsements keep changing")
        return result

    def _fetch(self, needs: Sequence[_Need], now: datetime) -> UnavailableError | None:
        missing = None
        for need in needs:
            try:
                self._fetched.fetch(need, now)
            except UnavailableError as exc:
                missing = exc
            except TrothError as exc:
                # A service whose answers cannot be believed tells us as much as one that is down.
                _LOG.error("upstream cannot be believed: %s", exc)
                missing = UnavailableError(f"upstream cannot be believed: {exc}")
        return missing
