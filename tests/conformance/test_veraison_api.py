# SPDX-License-Identifier: Apache-2.0
"""Veraison's own artefacts through its own interface: provision, session, submission, result.

What its integration tests do with its services, done with ours. Where our rules are stricter on
purpose, `test_appraisal_vectors` says so. Texts of problems are the ones that its tests compare.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.vectors import vectors
from support.veraison_tokens import psa_token
from support.verifier_world import BASE, NEW, VerifierWorld, octets, submods, verifier_world
from troth.control_plane.verification.sections import ProvisionerSection, ProvisioningSection

TOKEN = "a-token-of-a-provisioner-that-is-long-enough"
PSA_PROFILE = "tag:arm.com,2025:psa#1.0.0"
PSA_RIM = f'application/rim+cbor; profile="{PSA_PROFILE}"'
PSA_TYPE = "application/psa-attestation-token"
CCA_TYPE = 'application/eat-collection; profile="http://arm.com/CCA-SSD/1.0.0"'
SUBMIT = "/endorsement-provisioning/v1/submit"
OTHER_NONCE = base64.urlsafe_b64decode("deadbeefdeadbeefdeadbeefdeadbeefdeadbeefdea=")


@pytest.fixture
async def here() -> AsyncIterator[VerifierWorld]:
    async with verifier_world() as made:
        client = ProvisionerSection(
            name="veraison-provisioner", token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest()
        )
        made.options = {
            "allow_test_keys": True,
            "provisioning": ProvisioningSection(clients=[client], unsigned=True),
        }
        yield made


@pytest.fixture(scope="module")
def psa() -> Path:
    return vectors("psa") / "veraison-services"


@pytest.fixture(scope="module")
def cca() -> Path:
    return vectors("cca") / "veraison-services"


async def provision(here: VerifierWorld, corim: Path, media_type: str = PSA_RIM) -> dict[str, Any]:
    response = await here.web.post(
        SUBMIT,
        content=corim.read_bytes(),
        headers={"content-type": media_type, "authorization": f"Bearer {TOKEN}"},
    )
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def expected(path: Path) -> dict[str, tuple[str, dict[str, int]]]:
    return submods({"submods": json.loads(path.read_text())})


def nonce_of(claims: Path, name: str = "psa-nonce") -> bytes:
    return octets(json.loads(claims.read_text())[name])


async def test_good_psa_evidence_gets_the_result_that_veraison_expects(
    here: VerifierWorld, psa: Path
) -> None:
    async with here.serve():
        assert (await provision(here, psa / "corim-psa-valid.cbor"))["status"] == "success"
        claims = await here.verify(
            (psa / "psa.good.cose").read_bytes(), PSA_TYPE, nonce_of(psa / "psa.good.json")
        )
    wanted = json.loads((psa / "result-psa.good.json").read_text())
    assert submods(claims) == expected(psa / "result-psa.good.json")
    annotated = claims["submods"]["PSA_IOT"]["ear.veraison.annotated-evidence"]
    assert annotated == wanted["PSA_IOT"]["ear.veraison.annotated-evidence"]
    assert claims["eat_profile"] == "tag:github.com,2023:veraison/ear"
    assert octets(claims["eat_nonce"].replace("-", "+").replace("_", "/")) == nonce_of(
        psa / "psa.good.json"
    )


async def test_good_cca_evidence_gets_the_result_that_veraison_expects(
    here: VerifierWorld, cca: Path
) -> None:
    profile = 'application/rim+cbor; profile="tag:arm.com,2025:{}#1.0.0"'
    async with here.serve():
        for part in ("platform", "realm"):
            corim = cca / f"corim-cca-{part}-valid.cbor"
            assert (await provision(here, corim, profile.format(f"cca_{part}")))[
                "status"
            ] == "success"
        said = json.loads((cca / "cca-good.json").read_text())["cca-realm-delegated-token"]
        claims = await here.verify(
            (cca / "cca-good.cbor").read_bytes(), CCA_TYPE, octets(said["cca-realm-challenge"])
        )
    wanted = json.loads((cca / "result-cca.good.json").read_text())
    assert submods(claims) == expected(cca / "result-cca.good.json")
    for label in ("CCA_SSD_PLATFORM", "CCA_REALM"):
        name = "ear.veraison.annotated-evidence"
        found = claims["submods"][label][name]
        # The published claims are of another token of the same device: equal names, and equal
        # values of what the device is.
        assert found.keys() == wanted[label][name].keys()
        for claim in found.keys() & {
            "cca-platform-sw-components",
            "cca-platform-implementation-id",
            "cca-platform-config",
            "cca-realm-initial-measurement",
            "cca-realm-extensible-measurements",
        }:
            assert found[claim] == wanted[label][name][claim]


@pytest.mark.parametrize(
    ("claims", "outcome"),
    [("claims-psa.badswcomp.json", "badswcomp"), ("claims-psa.badinstance.json", "badinstance")],
)
async def test_bad_psa_evidence_gets_a_signed_result_too(
    here: VerifierWorld, psa: Path, claims: str, outcome: str
) -> None:
    token = psa_token(psa / claims, psa / "ec.p256.jwk")
    async with here.serve():
        await provision(here, psa / "corim-psa-valid.cbor")
        found = await here.verify(token, PSA_TYPE, nonce_of(psa / claims))
    assert submods(found) == expected(psa / f"result-psa.{outcome}.json")


async def test_a_strangers_signature_contraindicates_everything(
    here: VerifierWorld, psa: Path
) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    token = psa_token(psa / "psa.good.json", psa / "ec.p256.jwk", key=stranger)
    async with here.serve():
        await provision(here, psa / "corim-psa-valid.cbor")
        found = await here.verify(token, PSA_TYPE, nonce_of(psa / "psa.good.json"))
    assert submods(found) == expected(psa / "result-psa.badcrypto.json")
    assert found["submods"]["PSA_IOT"]["ear.veraison.policy-claims"]["problem"]


async def test_another_nonce_contraindicates_everything(here: VerifierWorld, psa: Path) -> None:
    async with here.serve():
        await provision(here, psa / "corim-psa-valid.cbor")
        found = await here.verify((psa / "psa.good.cose").read_bytes(), PSA_TYPE, OTHER_NONCE)
    assert submods(found) == expected(psa / "result-psa.freshness-fail.json")


async def test_evidence_without_an_identity_contraindicates_everything(
    here: VerifierWorld, psa: Path
) -> None:
    async with here.serve():
        await provision(here, psa / "corim-psa-valid.cbor")
        found = await here.verify(b"\xd2\x84\x40\xa0\x40\x40", PSA_TYPE, OTHER_NONCE)
    assert submods(found) == expected(psa / "result-psa.noident.json")


async def test_the_session_goes_as_veraisons_clients_go_it(here: VerifierWorld, psa: Path) -> None:
    nonce = nonce_of(psa / "psa.good.json")
    async with here.serve():
        await provision(here, psa / "corim-psa-valid.cbor")
        padded = base64.urlsafe_b64encode(nonce).decode()
        opened = await here.web.post(NEW, params={"nonce": padded})
        assert opened.status_code == 201
        assert opened.headers["location"].startswith("session/")
        assert opened.json()["status"] == "waiting"
        assert opened.json()["nonce"] == padded.rstrip("=")
        assert PSA_TYPE in opened.json()["accept"]
        at = BASE + opened.headers["location"]
        assert (await here.web.get(at)).json() == opened.json()
        done = await here.web.post(
            at, content=(psa / "psa.good.cose").read_bytes(), headers={"content-type": PSA_TYPE}
        )
        assert done.status_code == 200
        assert done.json()["status"] == "complete"
        assert done.json()["evidence"]["type"] == PSA_TYPE
        assert octets(done.json()["evidence"]["value"]) == (psa / "psa.good.cose").read_bytes()
        assert (await here.web.get(at)).json() == done.json()
        assert (await here.web.delete(at)).status_code == 204
        assert (await here.web.get(at)).status_code == 404


async def test_problems_say_what_veraisons_tests_compare(here: VerifierWorld) -> None:
    async with here.serve():
        refused = await here.web.post(NEW, params={"nonce": "Ppfdfe2JzZLOk="})
        assert refused.status_code == 400
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["title"] == "Bad Request"
        assert (
            refused.json()["detail"] == "failed handling nonce request: nonce must be valid base64"
        )
        elsewhere = await here.web.post(
            BASE + "1111-2222-3333", content=b"x", headers={"content-type": PSA_TYPE}
        )
        assert elsewhere.status_code == 404
        empty = await here.web.post(
            SUBMIT, headers={"content-type": PSA_RIM, "authorization": f"Bearer {TOKEN}"}
        )
        assert (empty.status_code, empty.json()["detail"]) == (400, "empty body")
        stranger = await here.web.post(SUBMIT, content=b"x", headers={"content-type": PSA_RIM})
        assert stranger.status_code == 401


@pytest.mark.parametrize("name", ["bad-class", "bad-instance", "bad-refval-mkey", "bad-ta-cert"])
async def test_a_bad_corim_is_answered_with_a_reason_and_changes_nothing(
    here: VerifierWorld, psa: Path, name: str
) -> None:
    async with here.serve():
        answered = await provision(here, psa / f"corim-psa-{name}.cbor")
        assert answered["status"] == "failed"
        assert answered["failure-reason"].startswith("submit endorsement returned error: ")
        assert (await here.operator.get("/v1/corims")).json() == []
