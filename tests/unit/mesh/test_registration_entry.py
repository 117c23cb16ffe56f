# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from troth.errors import AuthorizationError, DecodeError
from troth.evidence.evidence import Unchecked
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.mesh.registration_entry import (
    RegistrationEntry,
    device_key,
    match_entry,
    node_selector,
)
from troth.verifier.result import AssuranceTier, AttestationResult, SubmodResult, VerifierIdentity

RESULT = AttestationResult(
    scheme="psa",
    status=TrustTier.AFFIRMING,
    submods={
        "psa": SubmodResult(
            label="psa",
            component="node",
            layer="hardware",
            status=TrustTier.AFFIRMING,
            vector=TrustworthinessVector(),
            claims={"psa-client-id": -7, "psa-boot-odometer": 3, "psa-software-components": []},
        )
    },
    tier=AssuranceTier.MEASURED,
    component="node",
    layer="hardware",
    policy_id="default",
    policy_digest="",
    reference_epoch="",
    freshness=Unchecked("a test of selectors"),
    issued_at=datetime(2026, 11, 25, tzinfo=UTC),
    verifier=VerifierIdentity(developer="https://troth.example", build="1"),
    implementation_id=b"\xaa" * 32,
    instance_id=b"\x01" + b"\xbb" * 32,
    signer="cc" * 32,
    signer_is_device=True,
)
INSTANCE = f"instance:{RESULT.instance_id.hex()}"


def entry(*selectors: str, name: str = "e1") -> RegistrationEntry:
    return RegistrationEntry(
        id=name,
        spiffe_id=f"spiffe://example.org/{name}",
        selectors=tuple(node_selector(text) for text in selectors),
    )


@pytest.mark.parametrize(
    ("good", "neighbour"),
    [
        (INSTANCE, INSTANCE[:-2]),
        (f"implementation:{'aa' * 32}", f"implementation:{'aa' * 31}ab"),
        (f"signer:{'cc' * 32}", f"signer:{'cc' * 31}cd"),
    ],
)
def test_a_device_is_selected_by_its_exact_property(good: str, neighbour: str) -> None:
    assert match_entry([entry(good)], RESULT).id == "e1"
    with pytest.raises(AuthorizationError, match="no registration entry selects"):
        match_entry([entry(neighbour)], RESULT)


@pytest.mark.parametrize(
    ("claim", "selected"),
    [
        ("claim:psa/psa-client-id=-7", True),
        ("claim:psa/psa-client-id=-8", False),
        ("claim:psa/absent=-7", False),
        ("claim:realm/psa-client-id=-7", False),
        ("claim:psa/psa-software-components=[]", False),
    ],
)
def test_a_claim_selects_by_its_text_and_absence_never_matches(claim: str, selected: bool) -> None:  # noqa: FBT001 - a column of the table
    assert entry(INSTANCE, claim).selects(RESULT) is selected


def test_every_selector_has_to_hold() -> None:
    assert entry(INSTANCE, "scheme:psa").selects(RESULT)
    assert not entry(INSTANCE, "scheme:cca").selects(RESULT)


def test_the_most_specific_entry_wins_and_a_tie_refuses() -> None:
    wide, narrow = entry(INSTANCE), entry(INSTANCE, "scheme:psa", name="e2")
    assert match_entry([wide, narrow], RESULT) is narrow
    with pytest.raises(AuthorizationError, match="several registration entries"):
        match_entry([wide, replace(wide, id="e3")], RESULT)


def test_no_entry_is_a_refusal_that_says_what_an_entry_would_need() -> None:
    with pytest.raises(AuthorizationError, match=INSTANCE):
        match_entry([], RESULT)


@pytest.mark.parametrize(
    "selectors", [(), ("scheme:psa",), ("scheme:psa", "claim:psa/psa-client-id=-7")]
)
def test_an_entry_that_any_machine_could_meet_cannot_exist(selectors: tuple[str, ...]) -> None:
    with pytest.raises(DecodeError, match="any machine"):
        entry(*selectors)


def test_an_entry_does_not_repeat_selectors() -> None:
    with pytest.raises(DecodeError, match="different selectors"):
        entry(INSTANCE, INSTANCE)


@pytest.mark.parametrize(
    "text",
    ["", "psa", "scheme:", "scheme:PSA", "instance:XY", "instance:abc", "instance:AB", "host:a",
     "claim:a=b", "claim:a/b", "instance:ab\n", "signer: ab"],
)  # fmt: skip
def test_what_is_not_a_selector_is_refused_with_the_accepted_form(text: str) -> None:
    with pytest.raises(DecodeError, match=r"scheme:NAME|HEX|LABEL"):
        node_selector(text)


def test_a_device_is_known_by_its_own_key_else_by_its_instance_id() -> None:
    assert device_key(RESULT) == f"psa:signer:{'cc' * 32}"
    moved = replace(RESULT, instance_id=b"\x01" + b"\xdd" * 32)
    assert device_key(moved) == device_key(RESULT)
    rooted = replace(RESULT, signer_is_device=False)
    assert device_key(rooted) == f"psa:instance:{RESULT.instance_id.hex()}"


def test_evidence_that_names_no_machine_cannot_be_a_device() -> None:
    with pytest.raises(AuthorizationError, match="which machine"):
        device_key(replace(RESULT, signer_is_device=False, instance_id=b""))
