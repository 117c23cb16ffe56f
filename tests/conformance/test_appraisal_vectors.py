# SPDX-License-Identifier: Apache-2.0
"""The results that Veraison expects of its own Evidence, and the verdicts of SOURCES.md.

Where our rules are stricter on purpose, no published result shows it: lifecycle "non-PSA-RoT debug"
(Veraison affirms, we contraindicate), a described component that was not measured (it affirms, we
warn), a component without type or version (it gives up, we go on), a REM that differs (it affirms
with 3, we warn). tests/unit/verifier states those.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.appraisal import IDENTITY, NOW, UNCHECKED
from support.vectors import vectors
from support.veraison_tokens import psa_token
from troth.endorsement.store import EndorsementStore
from troth.errors import BindingError, FreshnessError, SignatureError, TrothError
from troth.evidence.evidence import Unchecked
from troth.formats import cbor
from troth.formats.ar4si import TrustTier
from troth.formats.corim.corim import Corim
from troth.formats.cose import sign1
from troth.formats.keys import VerificationKey, load_keys
from troth.formats.signer import LocalSigner
from troth.verifier.failure import failure_result
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.result import AssuranceTier, AttestationResult
from troth.verifier.verifier import Verifier

LABELS = {
    "PSA_IOT": "psa",
    "CCA_SSD_PLATFORM": "cca-platform",
    "CCA_REALM": "cca-realm",
    "ARM_CCA": "cca",
}


def verifier(*corims: Path, keys: Sequence[VerificationKey] = (), policy: str = "") -> Verifier:
    store = EndorsementStore()
    for path in corims:
        store.provision(Corim.decode(path.read_bytes()), now=NOW, source=path.name)
    found = (
        AppraisalPolicy.from_text(policy, name="v.rego") if policy else AppraisalPolicy.default()
    )
    return Verifier(
        identity=IDENTITY,
        endorsements=Believing(store, keys) if keys else store,
        policy=found,
        allow_test_keys=True,
    )


def keys_in(path: Path) -> list[VerificationKey]:
    return load_keys(path.read_bytes(), source=path.name)


class Believing:
    """Endorsements, and keys that everybody may sign with."""

    def __init__(self, store: EndorsementStore, keys: Sequence[VerificationKey]) -> None:
        self.store, self.keys = store, keys

    def snapshot(self, now: Any) -> Any:
        outer = self.store.snapshot(now)
        keys = self.keys

        class Snapshot:
            epoch = outer.epoch
            find = staticmethod(outer.find)
            certificates = staticmethod(outer.certificates)

            @staticmethod
            def keys(*_: object, **__: object) -> Any:
                return keys

        return Snapshot()


def attempt(
    given: Verifier, evidence: bytes, challenge: bytes | Unchecked = UNCHECKED, scheme: str = "auto"
) -> AttestationResult:
    try:
        return given.appraise(evidence, now=NOW, challenge=challenge, scheme=scheme)
    except TrothError as exc:
        return failure_result(exc, scheme=scheme, now=NOW, verifier=IDENTITY, policy=given.policy)


def agrees(result: AttestationResult, expected: Path) -> None:
    """Compare statuses and vectors; 0 and absent are one thing."""
    wanted = {
        LABELS[label]: (
            submod["ear.status"],
            {n: v for n, v in submod["ear.trustworthiness-vector"].items() if v},
        )
        for label, submod in json.loads(expected.read_text()).items()
    }
    found = {
        label: (submod.status.word, {n: v for n, v in submod.vector.items() if v})
        for label, submod in result.submods.items()
    }
    assert found == wanted


@pytest.fixture
def psa() -> Path:
    return vectors("psa") / "veraison-services"


@pytest.fixture
def cca() -> Path:
    return vectors("cca") / "veraison-services"


def test_psa_good(psa: Path) -> None:
    given = verifier(psa / "corim-psa-valid.cbor")
    nonce = base64.b64decode(json.loads((psa / "psa.good.json").read_text())["psa-nonce"])
    result = attempt(given, (psa / "psa.good.cose").read_bytes(), nonce)
    agrees(result, psa / "result-psa.good.json")
    assert result.tier is AssuranceTier.MEASURED


def test_psa_with_another_software_component(psa: Path) -> None:
    token = psa_token(psa / "claims-psa.badswcomp.json", psa / "ec.p256.jwk")
    result = attempt(verifier(psa / "corim-psa-valid.cbor"), token)
    agrees(result, psa / "result-psa.badswcomp.json")
    assert any("measurement-value" in finding.claim for finding in result.findings)


def test_psa_signed_by_another_key(psa: Path) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    token = psa_token(psa / "psa.good.json", psa / "ec.p256.jwk", key=stranger)
    agrees(
        attempt(verifier(psa / "corim-psa-valid.cbor"), token, scheme="psa"),
        psa / "result-psa.badcrypto.json",
    )


def test_psa_of_an_unknown_instance(psa: Path) -> None:
    token = psa_token(psa / "claims-psa.badinstance.json", psa / "ec.p256.jwk")
    result = attempt(verifier(psa / "corim-psa-valid.cbor"), token, scheme="psa")
    agrees(result, psa / "result-psa.badinstance.json")
    assert "no trust anchor" in result.problem


def test_psa_with_another_nonce(psa: Path) -> None:
    given = verifier(psa / "corim-psa-valid.cbor")
    result = attempt(given, (psa / "psa.good.cose").read_bytes(), b"x" * 32, scheme="psa")
    agrees(result, psa / "result-psa.freshness-fail.json")


def test_psa_without_identity(psa: Path) -> None:
    token = sign1(cbor.encode({265: "http://arm.com/psa/2.0.0"}), _signer())
    result = attempt(verifier(psa / "corim-psa-valid.cbor"), token, scheme="psa")
    agrees(result, psa / "result-psa.noident.json")


def test_cca_good(cca: Path) -> None:
    result = attempt(_cca(cca), (cca / "cca-good.cbor").read_bytes(), _challenge(cca))
    agrees(result, cca / "result-cca.good.json")
    assert result.tier is AssuranceTier.CONFIDENTIAL


def test_cca_with_another_challenge(cca: Path) -> None:
    result = attempt(_cca(cca), (cca / "cca-good.cbor").read_bytes(), b"x" * 64, scheme="cca")
    agrees(result, cca / "result-cca.freshness-fail.json")


def test_cca_under_veraisons_policy_that_compares_the_challenge(cca: Path) -> None:
    policy = """package policy

status = AFFIRMING {
  base64url.decode(session["nonce"]) == base64.decode(evidence["realm"]["cca-realm-challenge"])
} else =  CONTRAINDICATED
"""
    given = _cca(cca, policy=policy)
    evidence = (cca / "cca-good.cbor").read_bytes()
    agrees(attempt(given, evidence, _challenge(cca)), cca / "result-cca.verify-challenge.json")
    unchecked = attempt(given, evidence)
    assert unchecked.status is TrustTier.CONTRAINDICATED


@pytest.mark.parametrize(
    "name", ["cca_example_token.cbor", "cca_example_token_legacy.cbor", "cca_token.cbor"]
)
def test_reference_firmwares_token_is_authentic_and_not_affirmed(name: str) -> None:
    """Nobody described them: authentic is not affirming."""
    folder = vectors("cca") / "iat-verifier"
    result = attempt(
        verifier(keys=keys_in(folder / "cca_platform.pem")), (folder / name).read_bytes()
    )
    assert result.problem == ""
    assert result.status is TrustTier.WARNING
    assert result.tier is AssuranceTier.IDENTIFIED


@pytest.mark.parametrize("envelope", ["sign1", "mac0"])
def test_the_rfcs_example_is_authentic_and_not_affirmed(envelope: str) -> None:
    folder = vectors("psa") / "rfc9783"
    token = bytes.fromhex("".join((folder / f"psa-{envelope}.hex").read_text().split()))
    if envelope == "sign1":
        keys = keys_in(folder / "tfm-es-iak.json")
    else:
        # The file is folded as RFC 8792 section 7.2 has it.
        folded = (folder / "tfm-hs-iak.json").read_text().partition("\n\n")[2]
        octets = json.loads(re.sub(r"\\\n *\\", "", folded))["k"]
        keys = [VerificationKey(base64.urlsafe_b64decode(octets + "=="))]
    result = attempt(verifier(keys=keys), token)
    assert result.problem == ""
    assert result.status is TrustTier.WARNING


@pytest.mark.parametrize(
    ("file", "key", "error"),
    [
        ("cca_example_token.cbor", "cca_realm.pem", SignatureError),
        ("cca_example_platform_token.cbor", "cca_platform.pem", TrothError),
    ],
)
def test_what_is_not_authentic_or_not_whole_is_refused(
    file: str, key: str, error: type[TrothError]
) -> None:
    folder = vectors("cca") / "iat-verifier"
    given = verifier(keys=keys_in(folder / key))
    with pytest.raises(error):
        given.appraise((folder / file).read_bytes(), now=NOW, challenge=UNCHECKED, scheme="cca")


def test_tokens_of_two_platforms_do_not_go_together() -> None:
    folder = vectors("cca") / "iat-verifier"
    one = cbor.decode((folder / "cca_example_token.cbor").read_bytes(), format="t")
    other = cbor.decode((folder / "cca_token.cbor").read_bytes(), format="t")
    assert isinstance(one, cbor.Tag)
    assert isinstance(other, cbor.Tag)
    mixed = cbor.Tag(907, {44234: one.value[44234], 44241: other.value[44241]})  # type: ignore[index]
    with pytest.raises(BindingError):
        verifier(keys=keys_in(folder / "cca_platform.pem")).appraise(
            cbor.encode(mixed), now=NOW, challenge=UNCHECKED
        )


@pytest.mark.parametrize("size", [8, 31, 33, 64])
def test_a_part_of_the_nonce_or_more_of_it_is_another_nonce(psa: Path, size: int) -> None:
    nonce = base64.b64decode(json.loads((psa / "psa.good.json").read_text())["psa-nonce"])
    with pytest.raises(FreshnessError):
        verifier(psa / "corim-psa-valid.cbor").appraise(
            (psa / "psa.good.cose").read_bytes(), now=NOW, challenge=(nonce * 2)[:size]
        )


def _signer() -> LocalSigner:
    return LocalSigner(ec.generate_private_key(ec.SECP256R1()))


def _cca(folder: Path, *, policy: str = "") -> Verifier:
    return verifier(
        folder / "corim-cca-platform-valid.cbor",
        folder / "corim-cca-realm-valid.cbor",
        policy=policy,
    )


def _challenge(folder: Path) -> bytes:
    said = json.loads((folder / "cca-good.json").read_text())
    return base64.b64decode(said["cca-realm-delegated-token"]["cca-realm-challenge"])
