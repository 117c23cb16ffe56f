# SPDX-License-Identifier: Apache-2.0
"""Documents of vendors are fetched when they are missing, and nothing is decided without them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.kds import AUTHORITY, CHAIN, CRL, REPORT, VCEK, FakeKds, fake_kds
from support.vendor_evidence import CHALLENGE, NOW
from troth.adapters.collateral_fetching import (
    CollateralFetchingVerifier,
    vendor_fetchers,
    with_fetchers,
)
from troth.cli.other_services import fetching, vendor_services
from troth.control_plane.server.config import VerifierSection
from troth.endorsement.sev_snp_corim import sev_snp_corim
from troth.endorsement.store import EndorsementStore
from troth.errors import CollateralError, ConfigurationError
from troth.verifier.result import VerifierIdentity
from troth.verifier.verifier import Verifier


@pytest.fixture
def kds() -> Iterator[FakeKds]:
    with fake_kds() as made:
        yield made


@pytest.fixture
def plain() -> Verifier:
    store = EndorsementStore()
    roots = sev_snp_corim(corim_id="roots", roots=[AUTHORITY.ark])
    store.provision(roots, now=NOW, source="roots.corim")
    return Verifier(
        identity=VerifierIdentity(developer="test", build="1"),
        endorsements=store,
        allow_simulator=True,
    )


def appraise(verifier: Verifier) -> object:
    return verifier.appraise(REPORT, now=NOW, challenge=CHALLENGE)


def able(plain: Verifier, folder: Path, url: str) -> CollateralFetchingVerifier:
    return with_fetchers(plain, vendor_fetchers(["amd"], folder, amd_kds=url))


def test_what_is_missing_is_fetched_once_and_then_kept(
    plain: Verifier, kds: FakeKds, tmp_path: Path
) -> None:
    with pytest.raises(CollateralError):
        appraise(plain)
    verifier = able(plain, tmp_path, kds.url)
    appraise(verifier)
    assert set(kds.asked) == {VCEK.path, CHAIN.path, CRL.path}
    asked = len(kds.asked)
    appraise(verifier)
    assert len(kds.asked) == asked
    appraise(able(plain, tmp_path, "http://127.0.0.1:1"))  # offline, from the directory


def test_without_the_service_nothing_is_decided(plain: Verifier, tmp_path: Path) -> None:
    with pytest.raises(CollateralError, match="cannot be fetched now"):
        appraise(able(plain, tmp_path, "http://127.0.0.1:1"))


def test_a_chip_that_the_vendor_does_not_know_is_undecided_too(
    plain: Verifier, kds: FakeKds, tmp_path: Path
) -> None:
    kds.refuse(VCEK, 404)
    with pytest.raises(CollateralError):
        appraise(able(plain, tmp_path, kds.url))


def test_nobody_is_asked_about_vendors_that_are_not_believed(
    plain: Verifier, kds: FakeKds, tmp_path: Path
) -> None:
    verifier = with_fetchers(plain, vendor_fetchers(["intel"], tmp_path, amd_kds=kds.url))
    with pytest.raises(CollateralError, match="no VCEK"):
        appraise(verifier)
    assert kds.asked == []


def test_a_changed_copy_still_fetches(plain: Verifier, kds: FakeKds, tmp_path: Path) -> None:
    copy = replace(able(plain, tmp_path, kds.url), allow_test_keys=True)
    appraise(copy)
    assert kds.asked


def test_the_configuration_puts_it_together(plain: Verifier, tmp_path: Path) -> None:
    off = vendor_services(VerifierSection(vendors=["amd"]), tmp_path)
    assert off == {}
    assert fetching(None, collateral=off)(plain) is plain
    section = VerifierSection(vendors=["amd", "intel"], collateral_fetch=True)
    section.check()
    on = vendor_services(section, tmp_path)
    assert set(on) == {"amd", "intel"}
    assert isinstance(fetching(None, collateral=on)(plain), CollateralFetchingVerifier)
    with pytest.raises(ConfigurationError, match="collateral_fetch"):
        VerifierSection(collateral_fetch=True).check()
