# SPDX-License-Identifier: Apache-2.0
"""Our own vectors, made by swtpm: tests/vectors/tpm2/SOURCES.md says what each has to lead to."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.appraisal import IDENTITY
from troth import errors
from troth.endorsement.build import AttestKey, measured_corim
from troth.endorsement.store import EndorsementStore
from troth.errors import SignatureError
from troth.evidence.tpm2 import SCHEME, encode
from troth.formats.corim.corim import Corim
from troth.formats.tpm.public import decode_public
from troth.verifier.result import AttestationResult
from troth.verifier.verifier import Verifier

FOLDER = Path(__file__).parents[3] / "vectors" / "tpm2"
ROWS = re.findall(
    r"^\| `(evidence-[\w-]+\.cbor)` \| (\w+) \|", (FOLDER / "SOURCES.md").read_text(), re.MULTILINE
)
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
CHALLENGE = bytes(range(32))


def appraise(data: bytes, *corims: Corim) -> AttestationResult:
    store = EndorsementStore()
    for corim in corims:
        store.provision(corim, now=NOW, source="vectors")
    return Verifier(identity=IDENTITY, endorsements=store).appraise(
        data, now=NOW, challenge=CHALLENGE
    )


def described() -> Corim:
    return Corim.decode((FOLDER / "corim-valid.cbor").read_bytes())


def unrestricted() -> Corim:
    """Return what somebody would provision who registered the unrestricted key."""
    public = (FOLDER / "unrestricted.pub").read_bytes()
    keys = [
        AttestKey(instance_id=decode_public(public).name, key=public),
        # The qualified name that the forged quote claims.
        AttestKey(instance_id=bytes(34), key=public),
    ]
    return measured_corim(corim_id="forged", scheme="tpm2", class_id=b"x", keys=keys)


def test_every_vector_has_an_expectation() -> None:
    assert {name for name, _ in ROWS} == {path.name for path in FOLDER.glob("evidence-*.cbor")}
    assert len(ROWS) > 5


@pytest.mark.parametrize(("name", "expected"), ROWS, ids=[name for name, _ in ROWS])
def test_a_vector_leads_to_what_is_expected(name: str, expected: str) -> None:
    data = (FOLDER / name).read_bytes()
    if expected.endswith("Error"):
        with pytest.raises(getattr(errors, expected)):
            appraise(data, described(), unrestricted())
    else:
        assert appraise(data, described()).status.word == expected


def test_the_changed_machine_says_what_changed() -> None:
    found = appraise((FOLDER / "evidence-valid-changed-event.cbor").read_bytes(), described())
    told = {finding.claim: finding.actual for finding in found.findings}
    assert list(told) == [
        "PCR 8 (commands of the boot loader)",
        "PCR 8: event 17",
        "ima-log.boot-aggregate-matches",  # the kernel had taken it before
    ]
    assert "event 17 EV_IPL grub_cmd: insmod unknown was added" in next(iter(told.values()))
    found = appraise((FOLDER / "evidence-valid-unknown-file.cbor").read_bytes(), described())
    assert "ima-log[2] /opt/unknown" in {finding.claim for finding in found.findings}


def test_a_forged_quote_is_told_by_the_attributes_of_its_key_and_by_nothing_else() -> None:
    data = (FOLDER / "evidence-bad-unrestricted-key.cbor").read_bytes()
    with pytest.raises(SignatureError, match="the attestation key is not restricted"):
        appraise(data, unrestricted())
    # Who registers a key without looking at its public area believes the forgery.
    evidence = SCHEME.decode(data)
    bare = encode(
        quote=evidence.quote.raw,
        signature=data[data.index(evidence.quote.raw) + len(evidence.quote.raw) + 3 :][:72],
        pcr_values=evidence.pcr_values or b"",
    )
    assert appraise(bare, unrestricted()).status.word == "warning"


def test_every_vector_is_of_one_machine() -> None:
    name = decode_public((FOLDER / "ak.pub").read_bytes()).name
    for path in FOLDER.glob("evidence-valid*.cbor"):
        key = SCHEME.decode(path.read_bytes()).attestation_key
        assert key is not None
        assert key.name == name
