# SPDX-License-Identifier: Apache-2.0
"""What follows from a Nitro document and its Reference Values, one register at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.vendor_evidence import CHALLENGE, NOW
from troth.endorsement.build import measured_corim
from troth.endorsement.store import EndorsementStore
from troth.errors import ChainError
from troth.formats.ar4si import TrustTier
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.comid import Comid
from troth.formats.corim.corim import Corim
from troth.formats.corim.environment import EnvironmentClass, EnvironmentMap
from troth.formats.corim.triples import KeyTriple, Triples
from troth.mesh.registration_entry import device_key
from troth.testing.nitro import SimulatedEnclave
from troth.verifier.result import AssuranceTier, AttestationResult, VerifierIdentity
from troth.verifier.verifier import Verifier

ENCLAVE = SimulatedEnclave()
PCRS = dict(ENCLAVE.pcrs)
GOOD = {
    "instance-identity": 2,
    "executables": 3,
    "hardware": 2,
    "runtime-opaque": 2,
    "configuration": 2,
}


def root() -> Corim:
    pem = ENCLAVE.authority.root.public_bytes(Encoding.PEM).decode()
    environment = EnvironmentMap(environment_class=EnvironmentClass(vendor="test", model="root"))
    comid = Comid(
        tag_id="root",
        triples=Triples(attest_key=(KeyTriple(environment, (Tag(tags.CERTIFICATE, pem),)),)),
    )
    return Corim(corim_id="root", tags=(comid,), profile="tag:troth.example,2026:nitro#1.0.0")


def described(registers: Mapping[int, bytes] = PCRS, *, corim_id: str = "maker") -> Corim:
    return measured_corim(
        corim_id=corim_id,
        scheme="nitro",
        class_id=PCRS[0],
        registers={index: [value] for index, value in registers.items()},
    )


def verifier(*corims: Corim) -> Verifier:
    store = EndorsementStore()
    for corim in (root(), *(corims or (described(),))):
        store.provision(corim, now=NOW, source=f"{corim.id}.corim")
    return Verifier(
        identity=VerifierIdentity(developer="test", build="1"),
        endorsements=store,
        allow_simulator=True,
    )


def appraise(enclave: SimulatedEnclave = ENCLAVE, *corims: Corim) -> AttestationResult:
    return verifier(*corims).appraise(enclave.attest(CHALLENGE), now=NOW, challenge=CHALLENGE)


def vector(result: AttestationResult) -> dict[str, int]:
    return dict(result.submods["nitro"].vector.to_json())


def claims(result: AttestationResult) -> list[str]:
    return [finding.claim for finding in result.submods["nitro"].findings]


def with_register(index: int, value: bytes) -> SimulatedEnclave:
    return replace(ENCLAVE, pcrs={**PCRS, index: value})


def test_an_enclave_whose_registers_are_described_is_affirmed_as_confidential() -> None:
    result = appraise()
    assert vector(result) == GOOD
    assert result.status is TrustTier.AFFIRMING
    assert result.tier is AssuranceTier.CONFIDENTIAL
    assert claims(result) == []
    assert len(result.submods["nitro"].matched) == 1


@pytest.mark.parametrize(
    ("index", "changed", "claim"),
    [
        (1, {"executables": 33}, "pcrs[1] (kernel and boot)"),
        (2, {"executables": 33}, "pcrs[2] (application)"),
        (3, {"configuration": 32}, "pcrs[3] (role of the parent instance)"),
        (4, {"instance-identity": 97}, "pcrs[4] (parent instance)"),
        (8, {"executables": 33}, "pcrs[8] (key that signed the image)"),
    ],
)
def test_a_register_that_is_not_as_described_counts_for_what_it_measures(
    index: int, changed: Mapping[str, int], claim: str
) -> None:
    result = appraise(with_register(index, b"x" * 48))
    assert vector(result) == {**GOOD, **changed}
    assert claims(result) == [claim]
    assert result.status is not TrustTier.AFFIRMING


def test_a_register_that_is_described_must_be_measured() -> None:
    result = appraise(ENCLAVE, described({**PCRS, 17: b"x" * 48}))
    assert claims(result) == ["pcrs[17]"]
    assert vector(result) == {**GOOD, "configuration": 32}


def test_another_image_is_found_by_no_value() -> None:
    result = appraise(with_register(0, b"x" * 48))
    assert claims(result) == ["pcrs[0]"]
    expected = {name: value for name, value in GOOD.items() if name != "configuration"}
    assert vector(result) == {**expected, "executables": 33}
    assert result.status is TrustTier.WARNING


def test_the_image_itself_has_to_be_described() -> None:
    without = {index: value for index, value in PCRS.items() if index}
    assert vector(appraise(ENCLAVE, described(without)))["executables"] == 33
    image = appraise(ENCLAVE, described({0: PCRS[0]}))
    assert image.status is TrustTier.AFFIRMING
    assert "configuration" not in vector(image)


def test_debug_mode_is_contraindicated_whatever_is_described() -> None:
    debug = replace(ENCLAVE, pcrs={**PCRS, 0: bytes(48), 1: bytes(48), 2: bytes(48)})
    zeros = measured_corim(
        corim_id="zeros", scheme="nitro", class_id=bytes(48), registers={0: [bytes(48)]}
    )
    for corims in ((described(),), (zeros,)):
        result = appraise(debug, *corims)
        assert result.status is TrustTier.CONTRAINDICATED
        assert result.tier is AssuranceTier.REGISTERED
        assert claims(result)[0] == "debug_mode"
        assert vector(result)["runtime-opaque"] == vector(result)["configuration"] == 96
        assert vector(result)["executables"] == 33


def test_of_several_descriptions_the_nearest_counts_and_they_are_not_mixed() -> None:
    older = described({**PCRS, 1: b"o" * 48, 8: b"o" * 48}, corim_id="older")
    assert vector(appraise(ENCLAVE, older, described())) == GOOD
    half = described({**PCRS, 2: b"o" * 48}, corim_id="half")
    result = appraise(ENCLAVE, older, half)
    assert claims(result) == ["pcrs[2] (application)"]


def test_a_value_about_something_else_than_registers_never_matches() -> None:
    other = measured_corim(
        corim_id="other",
        scheme="nitro",
        class_id=PCRS[0],
        digests={"pcr0": [PCRS[0]]},
        registers={0: [PCRS[0]]},
    )
    result = appraise(ENCLAVE, other)
    assert vector(result)["executables"] == 33
    assert result.status is TrustTier.WARNING


def test_recorded_evidence_is_judged_by_the_time_when_it_came() -> None:
    """A server appraises its nodes' last Evidence anew when a policy changes, hours later."""
    data, later = ENCLAVE.attest(CHALLENGE), NOW + timedelta(hours=9)
    with pytest.raises(ChainError, match="are valid from"):
        verifier().appraise(data, now=later, challenge=CHALLENGE)
    result = verifier().appraise(data, now=later, received=NOW, challenge=CHALLENGE)
    assert result.status is TrustTier.AFFIRMING
    assert result.issued_at == later


def test_an_enclave_is_known_by_its_own_name() -> None:
    first, second = appraise(), appraise(ENCLAVE.saying(module_id="i-simulated-enc2"))
    assert device_key(first) != device_key(second)
    assert device_key(first) == f"nitro:instance:{ENCLAVE.module_id.encode().hex()}"
