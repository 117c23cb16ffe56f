# SPDX-License-Identifier: Apache-2.0
"""What every `EndorsementRepository` must do.

Inherit from `EndorsementRepositoryConformance` and make the repository in a fixture::

    class TestOurs(EndorsementRepositoryConformance):
        @pytest.fixture
        def repository(self) -> EndorsementRepository:
            return ours()
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from support.certificates import TestAuthority
from support.signing import p256_signer
from troth.endorsement.build import AttestKey, Component, psa_corim
from troth.endorsement.profiles import generic_uri
from troth.endorsement.repository import EndorsementRepository, Phase
from troth.errors import ConfigurationError, ConflictError, DecodeError, FreshnessError
from troth.formats.cbor import Tag
from troth.formats.corim import (
    Comid,
    Corim,
    EnvironmentClass,
    EnvironmentMap,
    KeyTriple,
    LinkedTag,
    Measurement,
    MeasurementTriple,
    MeasurementValues,
    SignedCorim,
    Svn,
    Triples,
    Validity,
    VerifiedCorim,
    sign_corim,
)
from troth.formats.corim.key_material import key_tag
from troth.formats.keys import VerificationKey, spki

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)
CLASS = bytes(range(32))
OTHER_CLASS = bytes(32)
INSTANCE = b"\x01" + bytes(range(32))
SIGNER_ID = sha256(b"signer").digest()
KEY = VerificationKey(p256_signer("conformance").public_key)


def good_corim(
    name: str = "good",
    *,
    firmware: bytes = b"bl2",
    validity: Validity | None = None,
    implementation_id: bytes = CLASS,
) -> Corim:
    """A CoRIM with a state of two components and one key."""
    return psa_corim(
        corim_id=name,
        implementation_id=implementation_id,
        components=[
            Component(digest=sha256(part).digest(), signer_id=SIGNER_ID, name=part.decode())
            for part in (firmware, b"prot")
        ],
        keys=[AttestKey(instance_id=INSTANCE, key=KEY)],
        validity=validity,
    )


def verified(corim: Corim, signer_name: str = "maker", *, now: datetime = NOW) -> VerifiedCorim:
    """The CoRIM after it went through a signature of this signer."""
    signer = p256_signer(signer_name)
    signed = SignedCorim.decode(
        sign_corim(corim, signer, signer_name=signer_name, validity=Validity(None, NOW + DAY))
    )
    return signed.verify([VerificationKey(signer.public_key)], now=now)


def names(repository: EndorsementRepository, now: datetime = NOW) -> set[str]:
    """Names of the components that are acceptable for the class at this time."""
    found = repository.snapshot(now).find("psa", class_id=CLASS)
    return {value.name for value in found}


class EndorsementRepositoryConformance:
    """The suite."""

    @pytest.fixture
    def repository(self) -> EndorsementRepository:
        """Return an empty repository."""
        raise NotImplementedError

    def test_an_empty_repository_knows_nothing(self, repository: EndorsementRepository) -> None:
        snapshot = repository.snapshot(NOW)
        assert not snapshot.find("psa", class_id=CLASS, instance_id=INSTANCE)
        assert not snapshot.keys("psa", implementation_id=CLASS, instance_id=INSTANCE)
        assert not snapshot.certificates("psa")
        assert repository.list(now=NOW) == ()

    def test_what_is_provisioned_is_found_by_its_environment(
        self, repository: EndorsementRepository
    ) -> None:
        done = repository.provision(good_corim(), now=NOW, source="good.cbor")
        assert done.id == "good"
        assert done.reference_values == ("good/good:state#0", "good/good:state#1")
        assert done.trust_anchors == ("good/good:keys#key0",)
        assert names(repository) == {"bl2", "prot"}
        snapshot = repository.snapshot(NOW)
        values = snapshot.find("psa", class_id=CLASS, instance_id=INSTANCE)
        assert [value.id for value in values] == list(done.reference_values)
        assert {value.source for value in values} == {"good.cbor"}
        assert len({value.state for value in values}) == 1
        (key,) = snapshot.keys("psa", implementation_id=CLASS, instance_id=INSTANCE)
        assert spki(key) == spki(KEY)

    def test_another_environment_or_scheme_finds_nothing(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        snapshot = repository.snapshot(NOW)
        assert not snapshot.find("psa", class_id=OTHER_CLASS)
        assert not snapshot.find("cca", class_id=CLASS)
        assert not snapshot.find("psa", class_id=b"")
        assert not snapshot.keys("psa", implementation_id=OTHER_CLASS, instance_id=INSTANCE)
        assert not snapshot.keys("psa", implementation_id=CLASS, instance_id=b"\x01" + bytes(32))
        assert not snapshot.keys("psa", implementation_id=CLASS, instance_id=b"")
        assert not snapshot.keys("cca", implementation_id=CLASS, instance_id=INSTANCE)

    def test_the_class_is_found_by_the_instance_where_evidence_does_not_say_it(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        snapshot = repository.snapshot(NOW)
        assert len(snapshot.find("psa", class_id=b"", instance_id=INSTANCE)) == 2
        assert not snapshot.find("psa", class_id=b"", instance_id=b"\x01" + bytes(32))
        assert len(snapshot.keys("psa", implementation_id=b"", instance_id=INSTANCE)) == 1

    def test_a_corim_that_breaks_a_rule_leaves_nothing_behind(
        self, repository: EndorsementRepository
    ) -> None:
        before = repository.snapshot(NOW).epoch
        good = good_corim()
        broken = replace(good, tags=(*good.tags, replace_key(good.tags[0])))
        with pytest.raises(DecodeError, match=r"tags\[2\].*measurements\[0\].mkey"):
            repository.provision(broken, now=NOW, source="broken.cbor")
        assert repository.list(now=NOW) == ()
        assert names(repository) == set()
        assert repository.snapshot(NOW).epoch == before

    def test_an_unknown_profile_is_rejected_whole(self, repository: EndorsementRepository) -> None:
        unknown = replace(good_corim(), profile="tag:example.com,2026:unknown")
        with pytest.raises(DecodeError, match=r"tag:example\.com,2026:unknown"):
            repository.provision(unknown, now=NOW, source="unknown.cbor")
        assert repository.list(now=NOW) == ()

    def test_the_same_content_again_changes_nothing(
        self, repository: EndorsementRepository
    ) -> None:
        first = repository.provision(good_corim(), now=NOW, source="good.cbor")
        again = repository.provision(good_corim(), now=NOW, source="copy.cbor")
        assert again.unchanged
        assert not first.unchanged
        assert again.epoch == first.epoch
        assert len(repository.list(now=NOW)) == 1

    def test_other_content_under_the_same_identifier_is_a_conflict(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        with pytest.raises(ConflictError, match="good"):
            repository.provision(good_corim(firmware=b"bl3"), now=NOW, source="x")
        assert names(repository) == {"bl2", "prot"}

    def test_two_corims_about_one_class_are_both_found(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="a")
        repository.provision(good_corim("next", firmware=b"bl3"), now=NOW, source="b")
        assert names(repository) == {"bl2", "bl3", "prot"}
        assert [held.id for held in repository.list(now=NOW)] == ["good", "next"]

    def test_one_value_can_be_withdrawn(self, repository: EndorsementRepository) -> None:
        before = repository.provision(good_corim(), now=NOW, source="good.cbor").epoch
        gone = repository.withdraw("good/good:state#0", now=NOW)
        assert [value.name for value in gone.reference_values] == ["bl2"]
        assert gone.reference_values[0].environment.class_id == CLASS
        assert gone.trust_anchors == ()
        assert gone.epoch == repository.snapshot(NOW).epoch != before
        assert names(repository) == {"prot"}
        (held,) = repository.list(now=NOW)
        assert held.withdrawn == ("good/good:state#0",)
        assert (held.reference_values, held.trust_anchors) == (1, 1)

    def test_one_tag_can_be_withdrawn(self, repository: EndorsementRepository) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        gone = repository.withdraw("good/good:state", now=NOW)
        assert len(gone.reference_values) == 2
        assert names(repository) == set()
        keys = repository.snapshot(NOW).keys("psa", implementation_id=CLASS, instance_id=INSTANCE)
        assert len(keys) == 1

    def test_one_key_can_be_withdrawn(self, repository: EndorsementRepository) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        gone = repository.withdraw("good/good:keys#key0", now=NOW)
        assert [anchor.environment.instance_id for anchor in gone.trust_anchors] == [INSTANCE]
        snapshot = repository.snapshot(NOW)
        assert not snapshot.keys("psa", implementation_id=CLASS, instance_id=INSTANCE)
        assert names(repository) == {"bl2", "prot"}

    def test_root_certificates_come_and_go_by_scheme(
        self, repository: EndorsementRepository
    ) -> None:
        roots = [x509.load_pem_x509_certificate(TestAuthority(name).bundle) for name in "ab"]
        empty = repository.snapshot(NOW).epoch
        repository.provision(vendor_corim("roots", roots), now=NOW, source="vendor")
        assert list(repository.snapshot(NOW).certificates("sev_snp")) == roots
        assert not repository.snapshot(NOW).certificates("tdx")
        gone = repository.withdraw("roots/roots:tag#key0", now=NOW)
        assert [anchor.x509_certificate() for anchor in gone.trust_anchors] == roots[:1]
        assert list(repository.snapshot(NOW).certificates("sev_snp")) == roots[1:]
        repository.withdraw("roots", now=NOW)
        assert not repository.snapshot(NOW).certificates("sev_snp")
        assert repository.snapshot(NOW).epoch == empty

    def test_values_and_keys_may_be_of_an_instance_alone(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(instance_corim("one", b"instance"), now=NOW, source="a")
        snapshot = repository.snapshot(NOW)
        for class_id in (b"", b"any class"):
            found = snapshot.find("tpm2", class_id=class_id, instance_id=b"instance")
            assert [value.svn for value in found] == [1]
            keys = snapshot.keys("tpm2", implementation_id=class_id, instance_id=b"instance")
            assert len(keys) == 1
        assert not snapshot.find("tpm2", class_id=b"", instance_id=b"other")
        repository.withdraw("one", now=NOW)
        assert not repository.snapshot(NOW).find("tpm2", class_id=b"", instance_id=b"instance")

    def test_keys_may_be_of_a_class(self, repository: EndorsementRepository) -> None:
        repository.provision(class_key_corim("fleet", b"class"), now=NOW, source="a")
        snapshot = repository.snapshot(NOW)
        for instance in (b"", b"any instance"):
            keys = snapshot.keys("tpm2", implementation_id=b"class", instance_id=instance)
            assert len(keys) == 1
        assert not snapshot.keys("tpm2", implementation_id=b"other", instance_id=b"any instance")
        assert not snapshot.keys("tpm2", implementation_id=b"", instance_id=b"any instance")
        repository.withdraw("fleet/fleet:tag#key0", now=NOW)
        snapshot = repository.snapshot(NOW)
        assert not snapshot.keys("tpm2", implementation_id=b"class", instance_id=b"")

    def test_a_whole_corim_can_be_withdrawn(self, repository: EndorsementRepository) -> None:
        empty = repository.snapshot(NOW).epoch
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        gone = repository.withdraw("good", now=NOW)
        assert (len(gone.reference_values), len(gone.trust_anchors)) == (2, 1)
        assert repository.list(now=NOW) == ()
        assert repository.snapshot(NOW).epoch == gone.epoch == empty

    @pytest.mark.parametrize(
        "identifier",
        [
            "",
            "goo",
            "good/",
            "good/good",
            "good/good:state#",
            "good/good:state#2",
            "other",
            "good#0",
        ],
    )
    def test_an_identifier_of_nothing_withdraws_nothing(
        self, repository: EndorsementRepository, identifier: str
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        before = repository.snapshot(NOW).epoch
        with pytest.raises(ConflictError, match="nothing is provisioned"):
            repository.withdraw(identifier, now=NOW)
        assert repository.snapshot(NOW).epoch == before
        assert names(repository) == {"bl2", "prot"}

    def test_a_value_cannot_be_withdrawn_twice(self, repository: EndorsementRepository) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        repository.withdraw("good/good:state#1", now=NOW)
        with pytest.raises(ConflictError):
            repository.withdraw("good/good:state#1", now=NOW)

    def test_a_copy_of_a_corim_does_not_bring_a_withdrawn_value_back(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        repository.withdraw("good/good:state#0", now=NOW)
        again = repository.provision(good_corim(), now=NOW, source="good.cbor")
        assert again.unchanged
        assert again.reference_values == ("good/good:state#1",)
        assert names(repository) == {"prot"}

    def test_a_withdrawn_corim_comes_back_only_when_that_is_said(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        repository.withdraw("good", now=NOW)
        with pytest.raises(ConflictError, match="withdrawn"):
            repository.provision(good_corim(), now=NOW, source="good.cbor")
        assert names(repository) == set()
        repository.provision(good_corim(), now=NOW, source="good.cbor", reinstate=True)
        assert names(repository) == {"bl2", "prot"}

    def test_new_content_may_follow_a_withdrawn_corim(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        repository.withdraw("good", now=NOW)
        repository.provision(good_corim(firmware=b"bl3"), now=NOW, source="good.cbor")
        assert names(repository) == {"bl3", "prot"}

    def test_a_snapshot_does_not_change(self, repository: EndorsementRepository) -> None:
        repository.provision(good_corim(), now=NOW, source="good.cbor")
        held = repository.snapshot(NOW)
        epoch = held.epoch
        repository.withdraw("good", now=NOW)
        repository.provision(good_corim("next", firmware=b"bl3"), now=NOW, source="b")
        assert {value.name for value in held.find("psa", class_id=CLASS)} == {"bl2", "prot"}
        assert len(held.keys("psa", implementation_id=CLASS, instance_id=INSTANCE)) == 1
        assert held.epoch == epoch != repository.snapshot(NOW).epoch

    def test_the_epoch_names_the_set_and_not_the_way_to_it(
        self, repository: EndorsementRepository
    ) -> None:
        first = repository.provision(good_corim(), now=NOW, source="a").epoch
        second = repository.provision(good_corim("next", firmware=b"3"), now=NOW, source="b").epoch
        assert first != second
        repository.withdraw("good", now=NOW)
        alone = repository.snapshot(NOW).epoch
        assert alone not in {first, second}
        repository.provision(good_corim(), now=NOW, source="a", reinstate=True)
        assert repository.snapshot(NOW).epoch == second
        repository.withdraw("next", now=NOW)
        assert repository.snapshot(NOW).epoch == first

    def test_a_corim_is_in_force_from_the_first_to_the_last_moment_of_its_validity(
        self, repository: EndorsementRepository
    ) -> None:
        validity = Validity(NOW + DAY, NOW + 2 * DAY)
        done = repository.provision(good_corim(validity=validity), now=NOW, source="good.cbor")
        moment = timedelta(seconds=1)
        for when, phase in (
            (NOW, Phase.PENDING),
            (NOW + DAY - moment, Phase.PENDING),
            (NOW + DAY, Phase.IN_FORCE),
            (NOW + 2 * DAY, Phase.IN_FORCE),
            (NOW + 2 * DAY + moment, Phase.EXPIRED),
        ):
            in_force = phase is Phase.IN_FORCE
            assert bool(names(repository, when)) is in_force, when
            keys = repository.snapshot(when).keys(
                "psa", implementation_id=CLASS, instance_id=INSTANCE
            )
            assert bool(keys) is in_force
            assert repository.list(now=when)[0].phase is phase
            assert (repository.snapshot(when).epoch != done.epoch) is in_force

    def test_what_has_expired_can_still_be_withdrawn(
        self, repository: EndorsementRepository
    ) -> None:
        empty = repository.snapshot(NOW).epoch
        repository.provision(good_corim(validity=Validity(None, NOW)), now=NOW, source="a")
        later = NOW + DAY
        assert repository.snapshot(later).epoch == empty
        repository.withdraw("good/good:state#0", now=later)
        repository.withdraw("good", now=later)
        assert repository.snapshot(later).epoch == empty
        assert repository.list(now=later) == ()

    def test_values_say_until_when_they_are_good(self, repository: EndorsementRepository) -> None:
        validity = Validity(NOW - DAY, NOW + 2 * DAY)
        repository.provision(verified(good_corim(validity=validity)), now=NOW, source="a")
        for value in repository.snapshot(NOW).find("psa", class_id=CLASS):
            # The signature ends first.
            assert (value.not_before, value.not_after) == (NOW - DAY, NOW + DAY)
        assert not names(repository, NOW + DAY + timedelta(seconds=1))

    def test_an_expired_corim_is_refused(self, repository: EndorsementRepository) -> None:
        validity = Validity(None, NOW - timedelta(seconds=1))
        with pytest.raises(FreshnessError, match="expired at 2026-11-25T11:59:59Z"):
            repository.provision(good_corim(validity=validity), now=NOW, source="old.cbor")
        repository.provision(good_corim(validity=Validity(None, NOW)), now=NOW, source="a")

    def test_the_signer_is_the_authority(self, repository: EndorsementRepository) -> None:
        corim = verified(good_corim())
        repository.provision(corim, now=NOW, source="a")
        repository.provision(good_corim("unsigned"), now=NOW, source="b")
        signed, unsigned = repository.list(now=NOW)
        assert (signed.authority, unsigned.authority) == (corim.signer, "")
        assert (signed.media_type, unsigned.media_type) == (
            "application/rim+cose",
            "application/rim+cbor",
        )
        assert signed.content == corim.raw
        assert unsigned.content == good_corim("unsigned").encode()

    def test_a_replacement_takes_over_at_once(self, repository: EndorsementRepository) -> None:
        repository.provision(good_corim(), now=NOW, source="a")
        repository.replace("good", good_corim("next", firmware=b"bl3"), now=NOW, source="b")
        assert names(repository) == {"bl3", "prot"}
        assert [held.id for held in repository.list(now=NOW)] == ["next"]
        with pytest.raises(ConflictError):
            repository.provision(good_corim(), now=NOW, source="a")

    def test_a_replacement_may_keep_the_identifier(self, repository: EndorsementRepository) -> None:
        repository.provision(good_corim(), now=NOW, source="a")
        repository.replace("good", good_corim(firmware=b"bl3"), now=NOW, source="b")
        assert names(repository) == {"bl3", "prot"}

    def test_old_and_new_are_in_force_together_until_the_overlap_ends(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="a")
        until = NOW + DAY
        repository.replace(
            "good", good_corim("next", firmware=b"bl3"), now=NOW, source="b", overlap_until=until
        )
        assert names(repository) == {"bl2", "bl3", "prot"}
        old, new = repository.list(now=NOW)
        assert (old.phase, old.not_after) == (Phase.RETIRING, until)
        assert (new.phase, new.not_after) == (Phase.IN_FORCE, None)
        values = repository.snapshot(NOW).find("psa", class_id=CLASS)
        assert {value.not_after for value in values if value.name == "bl2"} == {until}
        assert names(repository, until) == {"bl2", "bl3", "prot"}
        after = until + timedelta(seconds=1)
        assert names(repository, after) == {"bl3", "prot"}
        assert [held.id for held in repository.list(now=after)] == ["next"]

    def test_an_overlap_does_not_prolong_a_validity(
        self, repository: EndorsementRepository
    ) -> None:
        validity = Validity(None, NOW + timedelta(hours=1))
        repository.provision(good_corim(validity=validity), now=NOW, source="a")
        repository.replace(
            "good", good_corim("next", firmware=b"3"), now=NOW, source="b", overlap_until=NOW + DAY
        )
        assert names(repository, NOW + timedelta(hours=2)) == {"3", "prot"}

    def test_an_overlap_in_the_past_or_with_itself_is_refused(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="a")
        other = good_corim("next", firmware=b"bl3")
        with pytest.raises(ConfigurationError, match="overlap_until"):
            repository.replace("good", other, now=NOW, source="b", overlap_until=NOW)
        with pytest.raises(ConflictError, match="itself"):
            repository.replace(
                "good", good_corim(firmware=b"3"), now=NOW, source="b", overlap_until=NOW + DAY
            )
        assert names(repository) == {"bl2", "prot"}

    def test_a_replacement_by_the_same_content_changes_nothing(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="a")
        done = repository.replace("good", good_corim(), now=NOW, source="b")
        assert done.unchanged
        assert names(repository) == {"bl2", "prot"}

    def test_a_replacement_whose_identifier_is_in_use_is_a_conflict(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="a")
        repository.provision(good_corim("next", firmware=b"bl3"), now=NOW, source="b")
        with pytest.raises(ConflictError, match="next"):
            repository.replace("good", good_corim("next", firmware=b"bl4"), now=NOW, source="c")
        assert names(repository) == {"bl2", "bl3", "prot"}

    def test_nothing_can_be_replaced_that_is_not_there(
        self, repository: EndorsementRepository
    ) -> None:
        with pytest.raises(ConflictError, match="other"):
            repository.replace("other", good_corim(), now=NOW, source="a")
        assert names(repository) == set()

    def test_a_replacement_that_breaks_a_rule_leaves_the_old_in_force(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(good_corim(), now=NOW, source="a")
        new = good_corim("next")
        broken = replace(new, tags=(replace_key(new.tags[0]),))
        with pytest.raises(DecodeError):
            repository.replace("good", broken, now=NOW, source="b")
        assert names(repository) == {"bl2", "prot"}

    def test_a_tag_that_replaces_another_withdraws_it(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(verified(good_corim()), now=NOW, source="a")
        new = replacing(good_corim("next", firmware=b"bl3"), "good:state")
        done = repository.provision(verified(new), now=NOW, source="b")
        assert done.withdrawn == ("good/good:state",)
        assert names(repository) == {"bl3", "prot"}

    def test_a_tag_of_another_authority_is_not_replaced(
        self, repository: EndorsementRepository
    ) -> None:
        repository.provision(verified(good_corim()), now=NOW, source="a")
        new = replacing(good_corim("next", firmware=b"bl3"), "good:state")
        done = repository.provision(verified(new, "somebody else"), now=NOW, source="b")
        assert done.withdrawn == ()
        assert names(repository) == {"bl2", "bl3", "prot"}


def vendor_corim(name: str, certificates: list[x509.Certificate]) -> Corim:
    """Root certificates of a vendor, for SEV-SNP."""
    keys = tuple(Tag(562, each.public_bytes(Encoding.DER)) for each in certificates)
    vendor = EnvironmentMap(environment_class=EnvironmentClass(vendor="Vendor"))
    return _generic(name, "sev_snp", Triples(attest_key=(KeyTriple(vendor, keys),)))


def instance_corim(name: str, instance: bytes) -> Corim:
    """A value and a key of one instance, for TPMs."""
    environment = EnvironmentMap(instance=Tag(560, instance))
    measurement = Measurement(values=MeasurementValues(svn=Svn(1)))
    triples = Triples(
        reference=(MeasurementTriple(environment, (measurement,)),),
        attest_key=(KeyTriple(environment, (key_tag(p256_signer("ak").public_key),)),),
    )
    return _generic(name, "tpm2", triples)


def class_key_corim(name: str, class_id: bytes) -> Corim:
    """A key that all instances of a class share, for TPMs."""
    environment = EnvironmentMap(environment_class=EnvironmentClass(class_id=Tag(560, class_id)))
    keys = (key_tag(p256_signer("shared").public_key),)
    return _generic(name, "tpm2", Triples(attest_key=(KeyTriple(environment, keys),)))


def _generic(name: str, scheme: str, triples: Triples) -> Corim:
    tag = Comid(tag_id=f"{name}:tag", triples=triples)
    return Corim(corim_id=name, tags=(tag,), profile=generic_uri(scheme))


def replace_key(tag: object) -> Comid:
    """A CoMID like `tag` whose first measurement has a key that the profile does not know."""
    assert isinstance(tag, Comid)
    (state,) = tag.triples.reference
    first = replace(state.measurements[0], key="psa.unknown")
    broken = replace(state, measurements=(first, *state.measurements[1:]))
    return replace(
        tag, tag_id=f"{tag.tag_id!s}:broken", triples=replace(tag.triples, reference=(broken,))
    )


def replacing(corim: Corim, target: str) -> Corim:
    """The CoRIM with a first tag that declares to replace the tag `target`."""
    first = corim.tags[0]
    assert isinstance(first, Comid)
    return replace(
        corim, tags=(replace(first, linked_tags=(LinkedTag(target, 1),)), *corim.tags[1:])
    )
