# SPDX-License-Identifier: Apache-2.0
"""Whatever a TPM, its firmware and the kernel write reads as it was written."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.software_tpm import (
    SHA1,
    SHA256,
    SHA384,
    SHA512,
    BootLog,
    FileLog,
    SoftwareTpm,
    p256,
    selection_of,
)
from troth.errors import DecodeError, SignatureError
from troth.formats.tpm.algorithms import HASHES
from troth.formats.tpm.attest import Quoted, decode_attest
from troth.formats.tpm.credential import decode_credential, make_credential
from troth.formats.tpm.event_log import decode_event_log
from troth.formats.tpm.event_text import describe_event
from troth.formats.tpm.ima_log import decode_ima_log
from troth.formats.tpm.pcr_selection import PCRS
from troth.formats.tpm.public import decode_public
from troth.formats.tpm.signature import decode_signature
from troth.formats.verification_key import VerificationKey

BANKS = (SHA1, SHA256, SHA384, SHA512)
TPM = SoftwareTpm(banks=BANKS)
selections = st.dictionaries(
    st.sampled_from(BANKS), st.sets(st.sampled_from(PCRS)), min_size=1
).filter(lambda chosen: any(chosen.values()))
events = st.lists(
    st.tuples(
        st.integers(0, 23),
        st.one_of(st.integers(0, 0x20), st.integers(0x80000000, 0x800000FF)),
        st.binary(max_size=80),
    ),
    max_size=20,
)


@given(selections, st.binary(max_size=64))
def test_a_quote_reads_as_it_was_made(selection: dict[int, set[int]], challenge: bytes) -> None:
    chosen = {bank: sorted(registers) for bank, registers in selection.items()}
    attest = decode_attest(TPM.quote(challenge, chosen))
    assert isinstance(attest.attested, Quoted)
    assert attest.extra_data == challenge
    found = attest.attested.selection
    assert found.encode() == selection_of(chosen)
    values = TPM.values(chosen)
    assert found.octets == len(values)
    split = found.split(values)
    assert found.join(split) == values
    assert all(
        split[hash_.name][register] == TPM.registers[hash_.id][register]
        for hash_, register in found
    )


@given(events)
def test_replaying_a_log_gives_what_the_tpm_holds(written: list[tuple[int, int, bytes]]) -> None:
    tpm = SoftwareTpm(banks=(SHA1, SHA256))
    log = BootLog(banks=(SHA1, SHA256), tpm=tpm)
    for pcr, kind, data in written:
        # A locality announced by such a remark is another test's business.
        log.add(pcr, kind, b"" if data.startswith(b"StartupLocality") else data)
    decoded = decode_event_log(log.data)
    for bank in decoded.banks:
        for pcr, value in decoded.replay(HASHES[bank]).items():
            assert value == tpm.registers[bank][pcr]
    assert all(describe_event(each, HASHES[SHA256]).isprintable() for each in decoded.events)


paths = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\n\0"), min_size=1, max_size=60
)


@given(
    st.sampled_from(["ima", "ima-ng", "ima-sig"]),
    st.lists(st.tuples(paths, st.binary(max_size=20), st.booleans()), min_size=1, max_size=8),
)
def test_both_encodings_of_files_say_the_same_and_replay(
    template: str, written: list[tuple[str, bytes, bool]]
) -> None:
    tpm = SoftwareTpm(banks=(SHA1, SHA256))
    log = FileLog(tpm=tpm, template=template)
    for path, content, violation in written:
        log.add(path, content, violation=violation, signature=content)
    entries = decode_ima_log(log.ascii).entries
    assert entries == decode_ima_log(log.binary).entries
    assert [each.path for each in entries] == [path for path, _, _ in written]
    for bank in (SHA1, SHA256):
        attested = decode_ima_log(log.binary).attested(HASHES[bank], tpm.registers[bank][10])
        assert attested == entries


@given(st.binary(min_size=1, max_size=32), st.text(max_size=8))
def test_a_credential_opens_in_its_tpm_and_reads_as_it_was_written(
    secret: bytes, name: str
) -> None:
    tpm = SoftwareTpm(endorsement=p256(name))
    made = make_credential(
        decode_public(tpm.endorsement_public), tpm.name, secret, random=os.urandom
    )
    again = decode_credential(made.encode())
    assert again == made
    assert tpm.activate(again.id_object, again.encrypted_seed, tpm.name) == secret


@given(st.data())
def test_no_changed_octet_of_a_signed_quote_goes_unnoticed(data: Any) -> None:
    quote = TPM.quote(b"challenge", {SHA256: [0, 7]})
    at = data.draw(st.integers(0, len(quote) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = quote[:at] + bytes([quote[at] ^ 1 << bit]) + quote[at + 1 :]
    signature = decode_signature(TPM.sign(quote))
    with pytest.raises((DecodeError, SignatureError)):
        signature.verify(
            VerificationKey(TPM.key.public_key()), decode_attest(changed).raw, format="quote"
        )
