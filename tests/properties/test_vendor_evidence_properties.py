# SPDX-License-Identifier: Apache-2.0
"""Whatever an SNP chip or an enclave says comes out as it went in; what is changed does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.vendor_evidence import CHALLENGE, UNCHECKED, verify_with
from troth.errors import (
    BindingError,
    ChainError,
    DecodeError,
    FreshnessError,
    SignatureError,
    UnavailableError,
)
from troth.evidence.nitro import SCHEME as NITRO
from troth.evidence.sev_snp import SCHEME as SNP
from troth.evidence.sev_snp import TcbVersion
from troth.evidence.sev_snp.certificate_table import NAMES, decode_table, encode_table
from troth.evidence.sev_snp.report import REPORT_SIZE, SIGNED_SIZE
from troth.testing.nitro import SimulatedEnclave
from troth.testing.sev_snp import SimulatedSnpGuest

GUEST = SimulatedSnpGuest()
ENCLAVE = SimulatedEnclave()
REFUSALS = (DecodeError, SignatureError, BindingError, ChainError, UnavailableError)

octets = {16: st.binary(min_size=16, max_size=16), 32: st.binary(min_size=32, max_size=32)}
levels = st.integers(0, 255)
parts = st.fixed_dictionaries(dict.fromkeys(("bootloader", "tee", "snp", "microcode"), levels))
turin_parts = st.fixed_dictionaries(
    dict.fromkeys(("fmc", "bootloader", "tee", "snp", "microcode"), levels)
)
challenges = st.binary(min_size=64, max_size=64)


@given(
    fields=st.fixed_dictionaries(
        {
            "version": st.integers(2, 5),
            "guest_svn": st.integers(0, 2**32 - 1),
            "policy": st.integers(0, 2**64 - 1),
            "vmpl": st.integers(0, 3),
            "platform_info": st.integers(0, 2**64 - 1),
            "family_id": octets[16],
            "host_data": octets[32],
            "report_id": octets[32],
        }
    ),
    challenge=challenges,
)
@settings(max_examples=60, deadline=None)
def test_what_a_chip_signs_comes_out_as_it_went_in(
    fields: dict[str, int | bytes], challenge: bytes
) -> None:
    data = GUEST.with_fields(**fields).attest(challenge)
    verified = verify_with(data, "sev_snp", GUEST.authority.ark, challenge=challenge)
    claims = verified.claims_sets[0].claims
    for name, value in fields.items():
        assert claims[name] == (value.hex() if isinstance(value, bytes) else value)
    assert verified.evidence.report.report_data == challenge


@given(at=st.integers(0, REPORT_SIZE - 1), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_a_bit_changed_under_the_signature_or_in_it_is_refused(at: int, bit: int) -> None:
    report = bytearray(GUEST.report(CHALLENGE))
    report[at] ^= 1 << bit
    data = bytes(report) + GUEST.table()
    if at >= SIGNED_SIZE + 144:  # nothing reads what follows the signature
        verify_with(data, "sev_snp", GUEST.authority.ark)
        return
    with pytest.raises(REFUSALS):
        verify_with(data, "sev_snp", GUEST.authority.ark, challenge=UNCHECKED)


@given(challenge=challenges, expected=st.binary(min_size=8, max_size=64))
@settings(max_examples=60, deadline=None)
def test_no_challenge_but_the_whole_one_is_accepted(challenge: bytes, expected: bytes) -> None:
    for data, name, root in (
        (GUEST.attest(challenge), "sev_snp", GUEST.authority.ark),
        (ENCLAVE.attest(challenge), "nitro", ENCLAVE.authority.root),
    ):
        verify_with(data, name, root, challenge=challenge)
        if expected != challenge:
            with pytest.raises(FreshnessError):
                verify_with(data, name, root, challenge=expected)


@given(ours=parts, lowest=parts)
def test_behind_is_behind_in_some_part_and_in_no_other_way(
    ours: dict[str, int], lowest: dict[str, int]
) -> None:
    behind = TcbVersion.of_parts(ours, turin=False).behind(TcbVersion.of_parts(lowest, turin=False))
    assert behind == {
        name: (ours[name], lowest[name]) for name in ours if ours[name] < lowest[name]
    }


@given(parts=turin_parts)
def test_parts_of_a_tcb_version_survive_packing(parts: dict[str, int]) -> None:
    packed = TcbVersion.of_parts(parts, turin=True)
    assert packed.parts == parts
    assert packed.reserved_bits == 0


@given(
    entries=st.dictionaries(st.sampled_from(sorted(NAMES)), st.binary(max_size=64), max_size=5),
    rest=st.binary(max_size=64),
)
def test_a_table_survives_encoding(entries: dict, rest: bytes) -> None:
    encoded = encode_table(entries)
    if entries:
        encoded += rest
    assert decode_table(encoded) == {NAMES[guid]: value for guid, value in entries.items()}


@given(
    pcrs=st.dictionaries(
        st.integers(0, 31), st.binary(min_size=48, max_size=48), min_size=1, max_size=32
    ),
    user_data=st.none() | st.binary(max_size=512),
    public_key=st.none() | st.binary(min_size=1, max_size=1024),
    module_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64),
)
@settings(max_examples=60, deadline=None)
def test_what_an_enclave_signs_comes_out_as_it_went_in(
    pcrs: dict[int, bytes], user_data: bytes | None, public_key: bytes | None, module_id: str
) -> None:
    said = {
        "pcrs": pcrs,
        "user_data": user_data,
        "public_key": public_key,
        "module_id": module_id,
    }
    data = ENCLAVE.saying(**said).attest(CHALLENGE)
    document = verify_with(data, "nitro", ENCLAVE.authority.root).evidence.document
    assert {name: getattr(document, name) for name in said} == said
    assert document.debug_mode == (not any(pcrs.get(0, b"")))


@given(data=st.binary(max_size=1300))
@settings(max_examples=300)
def test_other_octets_are_refused_by_decoding(data: bytes) -> None:
    for scheme in (SNP, NITRO):
        assert isinstance(scheme.recognises(data), bool)
        try:
            scheme.decode(data)
        except DecodeError:
            continue
        assert scheme is SNP
        assert len(data) >= REPORT_SIZE
