# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from support.intel import AUTHORITY, COLLATERAL, of_2023, of_2026
from support.vectors import vectors
from troth.errors import LimitExceededError
from troth.evidence.context import Collateral
from troth.evidence.intel.documents import CHAIN_MEMBER, MAX_DOCUMENT_BYTES, IntelDocuments
from troth.testing.sev_snp import SnpAuthority


def sort(**documents: bytes) -> IntelDocuments:
    return IntelDocuments.of(Collateral(documents))


def counts(found: IntelDocuments) -> tuple[int, int, int, int]:
    return (
        len(found.tcb_infos),
        len(found.identities),
        len(found.certificates),
        len(found.revocation_lists),
    )


def test_documents_are_told_apart_by_what_is_in_them() -> None:
    renamed = {str(index): data for index, data in enumerate(COLLATERAL.values())}
    found = IntelDocuments.of(Collateral(renamed))
    assert counts(found) == (1, 1, 1, 2)
    assert found.unreadable == ()


def test_the_signed_text_is_taken_as_it_stands() -> None:
    text = '{ "id":"TD_QE" , "x" : [1, {"a": "}"}] }'
    tcb_info = COLLATERAL["tcbInfo"]
    found = sort(a=tcb_info).tcb_infos[0]
    assert f'"tcbInfo":{found.text},"signature"'.encode() in tcb_info
    spaced = tcb_info.replace(b'{"tcbInfo":', b'\n{\t"tcbInfo" :\r\n ').replace(
        b',"signature":', b' , "signature" : '
    )
    assert sort(a=spaced).tcb_infos[0].text == found.text
    assert json.loads(text)["id"] == "TD_QE"


def test_intels_own_answers_are_read() -> None:
    assert counts(IntelDocuments.of(Collateral(of_2023()))) == (1, 1, 1, 2)
    folder = vectors("tdx")
    for name in ("trustee/tcbInfo.json", "go-tdx-guest/sample_tcbinfo_response_v5"):
        assert counts(sort(a=(folder / name).read_bytes())) == (1, 0, 0, 0)
    assert counts(sort(a=(folder / "trustee/enclaveIdentity.json").read_bytes())) == (0, 1, 0, 0)


def test_all_in_one_object_is_read() -> None:
    found = IntelDocuments.of(Collateral(of_2026()))
    assert counts(found) == (1, 1, 4, 2)
    assert found.tcb_infos[0].content.fmspc_text.lower() == "90c06f000000"


def test_the_chain_that_was_fetched_with_a_document_is_read() -> None:
    pem = AUTHORITY.signing.public_bytes(Encoding.PEM).decode()
    document = json.dumps({CHAIN_MEMBER: pem})[1:-1].encode()
    together = COLLATERAL["tcbInfo"][:-1] + b"," + document + b"}"
    assert counts(sort(a=together)) == (1, 0, 1, 0)


@pytest.mark.parametrize("form", ["der", "pem", "hex", "HEX\n"])
def test_a_revocation_list_may_come_in_several_forms(form: str) -> None:
    der = COLLATERAL["pckcrl"]
    data = {
        "der": der,
        "pem": x509.load_der_x509_crl(der).public_bytes(Encoding.PEM),
        "hex": der.hex().encode(),
        "HEX\n": der.hex().upper().encode() + b"\n",
    }[form]
    found = sort(a=data)
    assert [each.der for each in found.revocation_lists] == [der]


def test_other_vendors_documents_are_passed_over() -> None:
    amd = SnpAuthority()
    found = sort(chain=amd.chain(), root=amd.ark.public_bytes(Encoding.DER), text=b"hello", e=b"")
    assert counts(found) == (0, 0, 0, 0)
    assert found.unreadable == ()


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b'{"tcbInfo":{}}',
        b'{"tcbInfo":{},"signature":"00"}',
        b'{"tcbInfo":{},"tcbInfo":{},"signature":"00"}',
        b'{"tcbInfo":{},"signature":"zz"}',
        b'{"tcbInfo":{},"signature":7} x',
        b'{"tcbInfo" {}}',
        b'{"enclaveIdentity":{"id":"QE"},"signature":"' + b"00" * 64 + b'"}',
        b'{"a":' + b"[" * 20000 + b"]" * 20000 + b"}",
        b'{"tcb_info":"{}","qe_identity":"{}"}',
        b"{\xff}",
        b'{1:2,"tcbInfo":{}}',
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----",
    ],
)
def test_a_damaged_document_is_named_and_does_not_hide_the_others(document: bytes) -> None:
    found = IntelDocuments.of(Collateral({**COLLATERAL, "damaged": document}))
    assert counts(found) == (1, 1, 1, 2)
    assert len(found.unreadable) == 1
    assert found.unreadable[0].startswith("damaged (")


def test_a_document_that_is_far_too_long_is_not_read() -> None:
    long = b'{"a":"' + b"x" * MAX_DOCUMENT_BYTES + b'"}'
    assert "MAX_DOCUMENT_BYTES" in sort(a=long).unreadable[0]
    assert issubclass(LimitExceededError, Exception)
