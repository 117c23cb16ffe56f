# SPDX-License-Identifier: Apache-2.0
"""The verification API: what a session is good for, and what it costs to ask wrongly."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from support.verifier_world import BASE, NEW, SESSION, VerifierWorld, submods, verifier_world
from troth.clock import SystemClock
from troth.control_plane.verification.sections import ChallengeResponseSection
from troth.errors import UnavailableError
from troth.evidence.simulator import CcaOptions, PsaOptions, SimulatedPlatform
from troth.formats import cmw
from troth.formats.ear import PROFILES

PSA = SimulatedPlatform.create(PsaOptions(), random=os.urandom)
CCA = SimulatedPlatform.create(CcaOptions(), random=os.urandom)
NONCE = b"n" * 32
GOOD = {
    "instance-identity": 2,
    "executables": 2,
    "hardware": 2,
    "runtime-opaque": 2,
    "storage-opaque": 2,
}


@pytest.fixture
async def here() -> AsyncIterator[VerifierWorld]:
    async with verifier_world() as made:
        made.endorse(PSA)
        yield made


class LaterClock(SystemClock):
    """The system's clock, moved."""

    def __init__(self) -> None:
        self.moved = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.moved


async def test_evidence_with_the_sessions_nonce_is_affirmed(here: VerifierWorld) -> None:
    async with here.serve():
        claims = await here.verify(PSA.attest(NONCE), PSA.media_type, NONCE)
    assert submods(claims) == {"PSA_IOT": ("affirming", GOOD)}
    assert claims["troth_tier"] == "measured"
    assert claims["exp"] > claims["iat"]
    assert claims["iss"] == "troth"
    # It says that this device made this Evidence for this nonce, and nothing about any key.
    assert "ear.veraison.key-attestation" not in claims["submods"]["PSA_IOT"]


async def test_a_shorter_nonce_is_padded_as_the_scheme_does(here: VerifierWorld) -> None:
    here.endorse(CCA, "cca")
    async with here.serve():
        padded = CCA.attest(NONCE.ljust(64, b"\0"))
        claims = await here.verify(padded, CCA.media_type, NONCE)
        assert {label: status for label, (status, _) in submods(claims).items()} == {
            "CCA_SSD_PLATFORM": "affirming",
            "CCA_REALM": "affirming",
        }
        claims = await here.verify(PSA.attest(NONCE + bytes(32)), PSA.media_type, NONCE)
        assert submods(claims)["PSA_IOT"][0] == "contraindicated"


async def test_a_session_answers_once(here: VerifierWorld) -> None:
    async with here.serve():
        session = await here.open(NONCE)
        evidence = PSA.attest(NONCE)
        assert (await here.submit(session, evidence, PSA.media_type)).status_code == 200
        again = await here.submit(session, evidence, PSA.media_type)
        assert again.status_code == 409
        assert again.json()["code"] == "conflict"
        kept = (await here.web.get(BASE + session["id"])).json()
        assert kept["status"] == "complete"


async def test_of_submissions_that_race_one_gets_a_result(here: VerifierWorld) -> None:
    async with here.serve():
        session = await here.open(NONCE)
        evidence = PSA.attest(NONCE)
        raced = await asyncio.gather(
            *(here.submit(session, evidence, PSA.media_type) for _ in range(8))
        )
        assert sorted(each.status_code for each in raced) == [200] + [409] * 7


async def test_bad_evidence_uses_the_session_up_too(here: VerifierWorld) -> None:
    async with here.serve():
        session = await here.open(NONCE)
        bad = await here.submit(session, b"nothing", PSA.media_type)
        assert bad.status_code == 200
        assert submods(await here.claims(bad.json()["result"]))["PSA_IOT"][0] == "contraindicated"
        good = await here.submit(session, PSA.attest(NONCE), PSA.media_type)
        assert good.status_code == 409


async def test_a_refused_request_leaves_the_session_as_it_was(here: VerifierWorld) -> None:
    async with here.serve():
        session = await here.open(NONCE)
        evidence = PSA.attest(NONCE)
        assert (await here.submit(session, evidence, "text/plain")).status_code == 415
        assert (await here.submit(session, b"", PSA.media_type)).status_code == 400
        assert (await here.submit(session, b"x" * 100_000, PSA.media_type)).status_code == 413
        headers = {"accept": "text/html"}
        assert (await here.submit(session, evidence, PSA.media_type, **headers)).status_code == 406
        assert (await here.submit(session, evidence, PSA.media_type)).status_code == 200


async def test_a_session_that_was_given_up_is_gone(here: VerifierWorld) -> None:
    async with here.serve():
        session = await here.open(NONCE)
        at = BASE + session["id"]
        assert (await here.web.delete(at)).status_code == 204
        for response in (
            await here.web.get(at),
            await here.submit(session, PSA.attest(NONCE), PSA.media_type),
            await here.web.delete(at),
        ):
            assert response.status_code == 404


async def test_a_session_is_over_at_its_expiry(here: VerifierWorld) -> None:
    clock = LaterClock()
    async with here.serve(clock=clock):
        session = await here.open(NONCE)
        clock.moved = timedelta(seconds=149)
        assert (await here.web.get(BASE + session["id"])).status_code == 200
        clock.moved = timedelta(seconds=151)
        for response in (
            await here.web.get(BASE + session["id"]),
            await here.submit(session, PSA.attest(NONCE), PSA.media_type),
        ):
            assert (response.status_code, response.json()["code"]) == (404, "not_fresh")


async def test_sessions_of_an_earlier_start_are_unknown(here: VerifierWorld) -> None:
    async with here.serve():
        session = await here.open(NONCE)
    async with here.serve():
        response = await here.submit(session, PSA.attest(NONCE), PSA.media_type)
        assert response.status_code == 404


async def test_the_oldest_results_go_and_their_sessions_stay_used(here: VerifierWorld) -> None:
    here.options["challenge_response"] = ChallengeResponseSection(kept_results=1)
    async with here.serve():
        sessions = [await here.open(NONCE) for _ in range(3)]
        for session in sessions:
            assert (
                await here.submit(session, PSA.attest(NONCE), PSA.media_type)
            ).status_code == 200
        here.share.book.prune(now=SystemClock().now(), keep=1)
        found = [(await here.web.get(BASE + each["id"])).status_code for each in sessions]
        assert found == [404, 404, 200]
        again = await here.submit(sessions[0], PSA.attest(NONCE), PSA.media_type)
        assert again.status_code == 404


@pytest.mark.parametrize("wire", ["cbor", "json"])
async def test_evidence_may_come_in_a_cmw_record(here: VerifierWorld, wire: str) -> None:
    record = cmw.CmwRecord(PSA.media_type, PSA.attest(NONCE), cmw.Indicator.EVIDENCE)
    encode = cmw.encode_cbor if wire == "cbor" else cmw.encode_json
    async with here.serve():
        claims = await here.verify(encode(record), f"application/cmw+{wire}", NONCE)
        assert submods(claims) == {"PSA_IOT": ("affirming", GOOD)}
        session = await here.open(NONCE)
        result = cmw.CmwRecord("a/b", b"x", cmw.Indicator.ATTESTATION_RESULTS)
        for wrong, status in ((b"\x82", 400), (encode(result), 400)):
            response = await here.submit(session, wrong, f"application/cmw+{wire}")
            assert response.status_code == status
        foreign = cmw.CmwRecord("application/x-foreign", b"x")
        response = await here.submit(session, encode(foreign), f"application/cmw+{wire}")
        assert response.status_code == 415
        assert PSA.media_type in response.headers["accept"]


@pytest.mark.parametrize("profile", [p for p in PROFILES if "Trustee" not in p])
async def test_the_caller_may_choose_the_dialect_of_the_result(
    here: VerifierWorld, profile: str
) -> None:
    async with here.serve():
        session = await here.open(NONCE)
        accept = f'{SESSION}; eat_profile="{profile}"'
        response = await here.submit(session, PSA.attest(NONCE), PSA.media_type, accept=accept)
        assert response.headers["content-type"] == accept
        claims = await here.claims(response.json()["result"])
        assert claims["eat_profile"] == profile
        unknown = f'{SESSION}; eat_profile="tag:example.org,2026:other"'
        refused = await here.submit(
            await here.open(NONCE), PSA.attest(NONCE), PSA.media_type, accept=unknown
        )
        assert refused.status_code == 406


async def test_the_configured_dialect_has_our_own_names(here: VerifierWorld) -> None:
    here.options["challenge_response"] = ChallengeResponseSection(dialect="ietf-03", annotate=False)
    async with here.serve():
        claims = await here.verify(PSA.attest(NONCE), PSA.media_type, NONCE)
        assert list(claims["submods"]) == ["psa"]
        assert "ear_veraison_annotated_evidence" not in claims["submods"]["psa"]


async def test_a_policy_that_cannot_be_evaluated_affirms_nothing(here: VerifierWorld) -> None:
    class Broken:
        def evaluate(self, *_: Any) -> Any:
            raise UnavailableError("no process to evaluate the policy in")

    async with here.serve(evaluator=Broken()):
        claims = await here.verify(PSA.attest(NONCE), PSA.media_type, NONCE)
        # Indeterminate: it is not the device's fault, and it is no yes.
        status, vector = submods(claims)["PSA_IOT"]
        assert status == "none"
        assert set(vector.values()) == {-1}


async def test_callers_are_limited_each_and_told_when_to_come_back(here: VerifierWorld) -> None:
    here.options["challenge_response"] = ChallengeResponseSection(
        requests_per_second=0.01, request_burst=3
    )
    async with here.serve():
        found = [await here.web.post(NEW) for _ in range(5)]
        assert [each.status_code for each in found] == [201, 201, 201, 429, 429]
        assert int(found[-1].headers["retry-after"]) > 30
        assert found[-1].json()["code"] == "rate_limited"
        # Other interfaces have buckets of their own.
        assert (await here.web.get("/.well-known/veraison/verification")).status_code == 200


async def test_a_full_queue_says_when_to_come_back(here: VerifierWorld) -> None:
    here.options["appraisals_waiting"] = 1
    async with here.serve():
        sessions = [await here.open(NONCE) for _ in range(12)]
        raced = await asyncio.gather(
            *(here.submit(each, PSA.attest(NONCE), PSA.media_type) for each in sessions)
        )
        statuses = {each.status_code for each in raced}
        assert statuses == {200, 503}
        refused = next(each for each in raced if each.status_code == 503)
        assert refused.headers["retry-after"] == "1"
        # Its session is as it was.
        left = sessions[[each.status_code for each in raced].index(503)]
        assert (await here.submit(left, PSA.attest(NONCE), PSA.media_type)).status_code == 200


async def test_metrics_count_what_was_verified(here: VerifierWorld) -> None:
    here.options["public_metrics"] = True
    async with here.serve():
        await here.verify(PSA.attest(NONCE), PSA.media_type, NONCE)
        await here.verify(PSA.attest(NONCE), PSA.media_type, b"o" * 32)
        await here.web.post(NEW, params={"nonceSize": "1"})
        text = (await here.web.get("/metrics")).text
        for line in (
            'troth_verifications_total{scheme="psa",status="affirming"} 1.0',
            'troth_verifications_total{scheme="psa",status="contraindicated"} 1.0',
            "troth_verification_sessions_total 2.0",
            'troth_api_refused_total{api="challenge_response",code="malformed"} 1.0',
        ):
            assert line in text


async def test_what_is_not_served_is_not_there(here: VerifierWorld) -> None:
    here.options["challenge_response"] = ChallengeResponseSection(serve=False)
    async with here.serve():
        assert (await here.web.post(NEW)).status_code == 404
        assert (await here.web.get("/.well-known/veraison/verification")).status_code == 404
        assert (await here.web.get("/metrics")).status_code == 404
        assert (await here.web.get("/livez")).status_code == 200
