# SPDX-License-Identifier: Apache-2.0
"""AMD's service, played by a server on the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.kds import AUTHORITY, CHAIN, CRL, DAY, GUEST, REPORT, REQUESTS, VCEK, FakeKds, fake_kds
from support.vendor_evidence import CHALLENGE, NOW, verify_with
from troth.adapters.amd_kds import KDS_URL, AmdKds
from troth.errors import ApiMisuseError, UnavailableError
from troth.evidence.collateral_source import CollateralRequest
from troth.evidence.sev_snp.evidence import decode
from troth.evidence.sev_snp.kds import wanted
from troth.testing.sev_snp import SimulatedSnpGuest


class FixedClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> object:
        raise AssertionError

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def kds() -> Iterator[FakeKds]:
    with fake_kds() as fake:
        yield fake


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def client(kds: FakeKds, clock: FixedClock, tmp_path: Path) -> AmdKds:
    return AmdKds(tmp_path / "kept", base_url=kds.url, clock=clock, timeout_seconds=5.0)


def test_what_is_fetched_verifies_a_bare_report(client: AmdKds, kds: FakeKds) -> None:
    collateral = client.fetch(REQUESTS, now=NOW)
    assert kds.asked == [request.path for request in REQUESTS]
    verified = verify_with(REPORT, "sev_snp", AUTHORITY.ark, collateral=dict(collateral.documents))
    assert verified.claims_sets[0].claims["revocation"] == "current"


def test_the_service_is_amds_unless_said_otherwise(tmp_path: Path) -> None:
    assert AmdKds(tmp_path).base_url == KDS_URL == "https://kdsintf.amd.com"


def test_what_is_kept_is_not_asked_for_again(client: AmdKds, kds: FakeKds) -> None:
    first = client.fetch(REQUESTS, now=NOW)
    kds.asked.clear()
    assert client.fetch(REQUESTS, now=NOW + timedelta(hours=24)) == first
    assert kds.asked == []
    again = AmdKds(client.directory, base_url="http://127.0.0.1:1")
    assert again.fetch(REQUESTS, now=NOW) == first


def test_a_list_is_asked_for_again_after_a_day_and_nothing_else_is(
    client: AmdKds, kds: FakeKds
) -> None:
    client.fetch(REQUESTS, now=NOW)
    newer = AUTHORITY.revocations(made=NOW + DAY, next_update=NOW + 9 * DAY)
    kds.serve(CRL, newer)
    kds.asked.clear()
    later = client.fetch(REQUESTS, now=NOW + timedelta(hours=24, seconds=1))
    assert kds.asked == [CRL.path]
    assert later.documents[CRL.name] == newer


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_list_that_cannot_be_renewed_is_returned_as_it_is(
    client: AmdKds, kds: FakeKds, status: int
) -> None:
    first = client.fetch(REQUESTS, now=NOW)
    kds.refuse(CRL, status)
    assert client.fetch(REQUESTS, now=NOW + 9 * DAY) == first


def test_what_can_be_had_is_returned_without_the_rest(client: AmdKds, kds: FakeKds) -> None:
    kds.refuse(CRL, 404)
    assert set(client.fetch(REQUESTS, now=NOW).documents) == {VCEK.name, CHAIN.name}


def test_where_nothing_can_be_had_it_says_why(client: AmdKds, kds: FakeKds) -> None:
    kds.refuse(VCEK, 404)
    with pytest.raises(UnavailableError, match=r"VCEK of chip .* answered 404") as caught:
        client.fetch([VCEK], now=NOW)
    assert "does not know this chip at this TCB" in caught.value.remedy
    assert list(client.directory.glob("*")) == []


def test_a_refusal_is_remembered_for_a_while(
    client: AmdKds, kds: FakeKds, clock: FixedClock
) -> None:
    kds.refuse(VCEK, 404)
    for _ in range(3):
        with pytest.raises(UnavailableError) as caught:
            client.fetch([VCEK], now=NOW)
    assert kds.asked == [VCEK.path]
    assert caught.value.retry_after_seconds == 600.0
    client.fetch([CHAIN], now=NOW)  # others are asked for all the same
    clock.seconds += 601
    kds.serve(VCEK, GUEST.certificate.public_bytes(Encoding.DER))
    assert client.fetch([VCEK], now=NOW).documents


def test_a_service_that_asks_for_patience_is_left_alone(
    client: AmdKds, kds: FakeKds, clock: FixedClock
) -> None:
    kds.refuse(VCEK, 429, retry_after="120")
    with pytest.raises(UnavailableError, match="answered 429") as caught:
        client.fetch(REQUESTS, now=NOW)
    assert kds.asked == [VCEK.path]
    assert caught.value.retry_after_seconds == 120.0
    clock.seconds += 119
    with pytest.raises(UnavailableError):
        client.fetch(REQUESTS, now=NOW)
    assert kds.asked == [VCEK.path]
    clock.seconds += 2
    kds.serve(VCEK, GUEST.certificate.public_bytes(Encoding.DER))
    assert len(client.fetch(REQUESTS, now=NOW).documents) == 3


def test_a_patience_beyond_an_hour_is_cut(client: AmdKds, kds: FakeKds) -> None:
    kds.refuse(VCEK, 503, retry_after="999999")
    with pytest.raises(UnavailableError):
        client.fetch([VCEK], now=NOW)
    with pytest.raises(UnavailableError) as caught:
        client.fetch([VCEK], now=NOW)
    assert caught.value.retry_after_seconds == 3600.0


def test_requests_are_spread_out_before_the_service_has_to_insist(
    client: AmdKds, kds: FakeKds, clock: FixedClock
) -> None:
    fleet = [
        wanted(decode(SimulatedSnpGuest(hwid=bytes([index]) * 64).report(CHALLENGE)))[0]
        for index in range(1, 8)
    ]
    for request in fleet:
        kds.serve(request, GUEST.certificate.public_bytes(Encoding.DER))
    assert len(client.fetch(fleet, now=NOW).documents) == len(kds.asked) == 4
    with pytest.raises(UnavailableError, match="not asked for yet") as caught:
        client.fetch(fleet[4:], now=NOW)
    assert caught.value.retry_after_seconds == pytest.approx(10.0)
    clock.seconds += 10
    assert len(client.fetch(fleet[4:], now=NOW).documents) == 1
    clock.seconds += 1e6  # however long it was quiet, no more follow each other
    assert len(client.fetch(fleet, now=NOW).documents) == 7
    assert len(kds.asked) == 7


@pytest.mark.parametrize("content", [b"", b"<html>maintenance</html>", b"\x30\x03\x02\x01\x00"])
def test_a_page_that_is_no_certificate_is_not_kept(
    client: AmdKds, kds: FakeKds, content: bytes
) -> None:
    kds.serve(VCEK, content)
    with pytest.raises(UnavailableError, match="what came is none"):
        client.fetch([VCEK], now=NOW)
    assert list(client.directory.glob("*")) == []


def test_a_document_without_end_is_not_read_on(client: AmdKds, kds: FakeKds) -> None:
    kds.serve(CRL, bytes(1_048_577))
    with pytest.raises(UnavailableError, match="longer than any document"):
        client.fetch([CRL], now=NOW)


def test_a_redirection_is_not_followed(client: AmdKds, kds: FakeKds) -> None:
    kds.refuse(VCEK, 302, location=f"{kds.url}{CHAIN.path}")
    with pytest.raises(UnavailableError, match="answered 302"):
        client.fetch([VCEK], now=NOW)
    assert kds.asked == [VCEK.path]


def test_a_service_that_is_not_there_is_tried_again_later(
    tmp_path: Path, clock: FixedClock
) -> None:
    client = AmdKds(tmp_path, base_url="http://127.0.0.1:1", clock=clock)
    with pytest.raises(UnavailableError) as caught:
        client.fetch([VCEK], now=NOW)
    assert "into the directory" in caught.value.remedy
    with pytest.raises(UnavailableError) as caught:
        client.fetch([CHAIN], now=NOW)
    assert caught.value.retry_after_seconds == 30.0


def test_a_directory_that_cannot_be_written_costs_the_reader_nothing(
    kds: FakeKds, clock: FixedClock, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    client = AmdKds(tmp_path / "file" / "below", base_url=kds.url, clock=clock)
    assert client.fetch([VCEK], now=NOW).documents


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "/etc/x", ""])
def test_a_name_that_is_a_path_is_refused(client: AmdKds, name: str) -> None:
    request = CollateralRequest(name=name, path="/x", description="x")
    with pytest.raises(ApiMisuseError, match="no name for a document"):
        client.fetch([request], now=NOW)


def test_half_a_document_is_never_found(client: AmdKds) -> None:
    client.fetch(REQUESTS, now=NOW)
    assert {path.name for path in client.directory.iterdir()} == {r.name for r in REQUESTS}
