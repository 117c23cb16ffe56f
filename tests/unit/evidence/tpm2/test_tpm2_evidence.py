# SPDX-License-Identifier: Apache-2.0
"""The wire form of TPM Evidence."""

from __future__ import annotations

import pytest

from support.software_tpm import SHA256, BootLog, FileLog, SoftwareTpm, name_of, sized
from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.evidence.registry import by_media_type, detect
from troth.evidence.tpm2 import MEDIA_TYPE, SCHEME
from troth.formats import cbor

CHALLENGE = bytes(range(32))
TPM = SoftwareTpm()


def members() -> dict[int, object]:
    value = cbor.decode(TPM.evidence(CHALLENGE), format="test")
    assert isinstance(value, dict)
    return value


def changed(**changes: object) -> bytes:
    numbered = {int(key.removeprefix("_")): value for key, value in changes.items()}
    return cbor.encode(
        {key: value for key, value in {**members(), **numbered}.items() if value is not None}
    )


def test_evidence_holds_what_was_put_into_it() -> None:
    log, files = BootLog(), FileLog()
    log.boot()
    files.add("/bin/sh", b"shell")
    evidence = SCHEME.decode(TPM.evidence(CHALLENGE, event_log=log.data, ima_log=files.ascii))
    assert evidence.scheme == "tpm2"
    assert evidence.media_type == MEDIA_TYPE
    assert evidence.quote.extra_data == CHALLENGE
    assert evidence.pcr_values == TPM.values({SHA256: range(10)})
    assert evidence.attestation_key is not None
    assert evidence.attestation_key.name == TPM.name
    assert evidence.event_log is not None
    assert len(evidence.event_log.events) == 17
    assert evidence.ima_log is not None
    assert evidence.ima_log.entries[0].path == "/bin/sh"


def test_public_area_certificates_and_logs_may_be_left_out() -> None:
    evidence = SCHEME.decode(changed(_4=None))
    assert evidence.attestation_key is None
    assert evidence.certificates == ()
    assert evidence.event_log is None
    assert evidence.ima_log is None


def test_the_scheme_is_found_by_the_first_octets_and_by_the_media_type() -> None:
    log = BootLog()
    assert detect(TPM.evidence(CHALLENGE)) == "tpm2"
    assert detect(TPM.evidence(CHALLENGE, event_log=log.data)) == "tpm2"
    assert by_media_type(MEDIA_TYPE) == "tpm2"
    assert by_media_type("application/vnd.parallaxsecond.key-attestation.tpm") == "tpm2"
    assert by_media_type("application/vnd.enacttrust.tpm-evidence") == "tpm2"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (cbor.encode({0: "troth-tpm2/2"}), "is not a map whose member 0"),
        (cbor.encode([1]), "is not a map whose member 0"),
        (changed(_1=None), r"member 1 \(quote\) is missing"),
        (changed(_2=None), r"member 2 \(signature\) is missing"),
        (changed(_3=None), r"member 3 \(pcr-values\) is missing"),
        (changed(_3="text"), r"member 3 \(pcr-values\) is not a byte string"),
        (changed(_4=1), r"member 4 \(attestation-key\) is not a byte string"),
        (changed(_5=b""), r"member 5 \(certificates\) is not an array"),
        (changed(_5=[b"\x30\x00"]), "not a certificate"),
        (changed(_6=b"log"), "event log"),
        (changed(_7=b"log"), "IMA log"),
        (TPM.evidence(CHALLENGE) + b"\0", "TPM 2.0 Evidence"),
    ],
)
def test_malformed_evidence_is_refused_with_the_member(data: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        SCHEME.decode(data, media_type=MEDIA_TYPE)


def test_a_member_that_nothing_would_vouch_for_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="members that Troth does not know"):
        SCHEME.decode(changed(_8=b""))


def test_a_certification_is_no_evidence_about_a_machine() -> None:
    certified = TPM.attest(0x8017, CHALLENGE, sized(name_of(TPM.public)) + sized(b"q"))
    with pytest.raises(UnsupportedError, match="certifies a key"):
        SCHEME.decode(TPM.evidence(CHALLENGE, quote=certified))


def test_more_certificates_than_a_path_has_are_refused() -> None:
    with pytest.raises(LimitExceededError, match="MAX_CERTIFICATES=10"):
        SCHEME.decode(changed(_5=[b""] * 11))


def test_evidence_longer_than_its_parts_may_be_is_refused_unread() -> None:
    with pytest.raises(LimitExceededError, match="max_bytes=3276800"):
        SCHEME.decode(changed(_3=bytes(3_276_800)))


def test_another_media_type_is_refused() -> None:
    with pytest.raises(DecodeError, match="came as 'application/eat"):
        SCHEME.decode(TPM.evidence(CHALLENGE), media_type="application/eat+cwt")


def test_every_cut_is_refused() -> None:
    whole = TPM.evidence(CHALLENGE)
    for size in range(len(whole)):
        with pytest.raises(DecodeError):
            SCHEME.decode(whole[:size])
