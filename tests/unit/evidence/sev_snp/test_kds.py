# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from support.vectors import vectors
from support.vendor_evidence import CHALLENGE
from troth.errors import UnsupportedError
from troth.evidence.sev_snp.evidence import decode
from troth.evidence.sev_snp.kds import wanted
from troth.testing.sev_snp import SimulatedSnpGuest, SnpAuthority

GUEST = SimulatedSnpGuest(send_certificates=False)
CHIP = GUEST.hwid.hex()


def paths(data: bytes, **given: str) -> list[str]:
    return [request.path for request in wanted(decode(data), **given)]


def test_a_bare_report_wants_key_chain_and_list() -> None:
    assert paths(GUEST.attest(CHALLENGE)) == [
        f"/vcek/v1/Milan/{CHIP}?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219",
        "/vcek/v1/Milan/cert_chain",
        "/vcek/v1/Milan/crl",
    ]


def test_turin_is_asked_for_by_its_short_chip_id_and_its_fmc() -> None:
    turin = SimulatedSnpGuest(
        authority=SnpAuthority(product="Turin"),
        hwid=b"8 octets",
        tcb={"fmc": 1, "bootloader": 2, "tee": 3, "snp": 4, "microcode": 200},
    )
    assert paths(turin.report(CHALLENGE))[0] == (
        f"/vcek/v1/Turin/{b'8 octets'.hex()}?fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=200"
    )


def test_what_the_evidence_holds_is_not_asked_for() -> None:
    assert paths(SimulatedSnpGuest().attest(CHALLENGE)) == ["/vcek/v1/Milan/crl"]


def test_a_vlek_can_come_from_the_host_only() -> None:
    guest = SimulatedSnpGuest(csp_id="CN=x", send_certificates=False)
    assert paths(guest.attest(CHALLENGE)) == ["/vlek/v1/Milan/cert_chain", "/vlek/v1/Milan/crl"]


def test_names_differ_where_documents_do_and_only_lists_change() -> None:
    other = SimulatedSnpGuest(tcb={**GUEST.tcb, "microcode": 1}, send_certificates=False)
    first, second = (wanted(decode(each.attest(CHALLENGE))) for each in (GUEST, other))
    assert first[0].name != second[0].name
    assert first[1:] == second[1:]
    assert [request.changes for request in first] == [False, False, True]
    assert all("/" not in request.name for request in first)


def test_a_report_that_does_not_name_its_chip_cannot_be_asked_for() -> None:
    with pytest.raises(UnsupportedError, match="does not name its chip"):
        paths(GUEST.with_fields(chip_id=b"").report(CHALLENGE))


@pytest.mark.parametrize(
    ("fields", "shown"), [({"version": 2}, "not in the report"), ({"cpuid_model": 0x30}, "not in")]
)
def test_an_unknown_product_cannot_be_asked_for(fields: dict[str, int], shown: str) -> None:
    with pytest.raises(UnsupportedError, match=shown):
        paths(GUEST.with_fields(**fields).report(CHALLENGE))


def test_a_report_of_version_2_may_be_told_its_product() -> None:
    report = (vectors("sev-snp") / "go-sev-guest" / "attestation.bin").read_bytes()
    path = paths(report, product="Milan")[0]
    assert path.startswith("/vcek/v1/Milan/3ac3fe21e13fb0990eb28a802e3fb6a2")
    assert path.endswith("?blSPL=02&teeSPL=00&snpSPL=05&ucodeSPL=68")
    with pytest.raises(UnsupportedError, match="product line is Rome"):
        paths(report, product="Rome")
