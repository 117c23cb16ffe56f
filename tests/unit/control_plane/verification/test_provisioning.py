# SPDX-License-Identifier: Apache-2.0
"""Who may provision, what is taken from whom, and that every process believes it at once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.appraisal import corims_of
from support.verifier_world import VerifierWorld, submods, verifier_world
from troth.adapters.registry.sql_registry import SqlRegistry
from troth.control_plane.server.http_server import Caller
from troth.control_plane.verification import callers
from troth.control_plane.verification.sections import ProvisionerSection, ProvisioningSection
from troth.control_plane.verification.serve import (
    VerifierPorts,
    database_url,
    running_verifier,
)
from troth.evidence.simulator import PsaOptions, SimulatedPlatform
from troth.formats.corim.common import Validity
from troth.formats.corim.corim import Corim
from troth.formats.corim.signed import sign_corim
from troth.formats.signer import LocalSigner

SUBMIT = "/endorsement-provisioning/v1/submit"
TOKEN = "0123456789abcdef0123456789abcdef"
PSA = SimulatedPlatform.create(PsaOptions(), random=os.urandom)
(CORIM,) = corims_of(PSA)
AUTHOR = LocalSigner(ec.generate_private_key(ec.SECP256R1()), "author")
NONCE = b"n" * 32
RIM = "application/rim+cbor"
SIGNED_RIM = "application/rim+cose"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def signed(corim: Corim = CORIM) -> bytes:
    until = datetime.now(UTC) + timedelta(days=1)
    return sign_corim(
        corim, AUTHOR, signer_name="Author", validity=Validity(None, until.replace(microsecond=0))
    )


@pytest.fixture
async def here() -> AsyncIterator[VerifierWorld]:
    async with verifier_world() as made:
        key = made.directory / "author.pem"
        key.write_bytes(
            AUTHOR.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        client = ProvisionerSection(name="ci", token_sha256=digest(TOKEN))
        made.options |= {
            "corim_keys": [str(key)],
            "provisioning": ProvisioningSection(clients=[client]),
        }
        yield made


async def submit(
    web: httpx.AsyncClient, body: bytes, media_type: str = SIGNED_RIM, token: str = TOKEN
) -> httpx.Response:
    headers = {"content-type": media_type}
    if token:
        headers["authorization"] = f"Bearer {token}"
    return await web.post(SUBMIT, content=body, headers=headers)


async def held(here: VerifierWorld) -> list[str]:
    return [each["id"] for each in (await here.operator.get("/v1/corims")).json()]


async def status(here: VerifierWorld) -> str:
    claims = await here.verify(PSA.attest(NONCE), PSA.media_type, NONCE)
    return submods(claims)["PSA_IOT"][0]


async def test_a_signed_corim_from_a_configured_client_is_believed_at_once(
    here: VerifierWorld,
) -> None:
    async with here.serve():
        assert await status(here) == "contraindicated"
        answered = await submit(here.web, signed())
        assert answered.headers["content-type"] == (
            "application/vnd.veraison.provisioning-session+json"
        )
        assert answered.json()["status"] == "success"
        assert await status(here) == "affirming"
        log = (await here.operator.get("/v1/corims")).json()[0]
        assert log["source"].startswith("provisioner ci ")
        assert log["authority"]


async def test_nobody_provisions_over_the_network_unless_configured(here: VerifierWorld) -> None:
    here.options["provisioning"] = ProvisioningSection()
    async with here.serve():
        for token in (TOKEN, ""):
            refused = await submit(here.web, signed(), token=token)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        assert await held(here) == []


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        f"Bearer {digest(TOKEN)}",
        "Bearer " + "x" * 5000,
        "Bearer é" + "x" * 40,
    ],
)
async def test_any_other_credential_is_refused(here: VerifierWorld, authorization: str) -> None:
    async with here.serve():
        response = await here.web.post(
            SUBMIT,
            content=signed(),
            headers={"content-type": SIGNED_RIM, "authorization": authorization.encode("latin-1")},  # type: ignore[dict-item]  # as octets
        )
        assert response.status_code == 401
        assert await held(here) == []


async def test_a_short_token_is_refused_even_if_it_is_configured(here: VerifierWorld) -> None:
    client = ProvisionerSection(name="careless", token_sha256=digest("secret"))
    here.options["provisioning"] = ProvisioningSection(clients=[client])
    async with here.serve():
        assert (await submit(here.web, signed(), token="secret")).status_code == 401


def test_a_client_certificate_is_recognised_by_its_digest() -> None:
    client = ProvisionerSection(
        name="builder", certificate_sha256=hashlib.sha256(b"certificate").hexdigest()
    )
    provisioners = callers.Provisioners([client])
    assert provisioners.recognise(request(b"certificate")) == "builder"
    assert provisioners.recognise(request(b"another")) is None
    assert provisioners.recognise(request(b"")) is None


def request(certificate: bytes) -> Any:
    from starlette.requests import Request  # noqa: PLC0415 - for this test alone

    caller = Caller(address="192.0.2.1", certificate=certificate)
    scope = {"type": "http", "headers": [], "state": {"troth.caller": caller}}
    return Request(scope)


@pytest.mark.parametrize(
    ("address", "bucket"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unix", "unix"),
    ],
)
def test_whoever_has_a_whole_network_is_one_caller(address: str, bucket: str) -> None:
    assert callers.bucket_of(Caller(address=address)) == bucket


async def test_unsigned_corims_are_for_operators_unless_configured(here: VerifierWorld) -> None:
    async with here.serve():
        refused = (await submit(here.web, CORIM.encode(), RIM)).json()
        assert refused["status"] == "failed"
        assert "unsigned" in refused["failure-reason"]
        assert await held(here) == []
        by_operator = await here.operator.post(
            SUBMIT, content=CORIM.encode(), headers={"content-type": RIM}
        )
        assert by_operator.json()["status"] == "success"
        assert await status(here) == "affirming"


async def test_what_cannot_be_believed_is_answered_with_the_reason(here: VerifierWorld) -> None:
    stranger = LocalSigner(ec.generate_private_key(ec.SECP256R1()), "author")
    forged = sign_corim(
        CORIM,
        stranger,
        signer_name="Author",
        validity=Validity(None, datetime(2099, 1, 1, tzinfo=UTC)),
    )
    async with here.serve():
        for body, media_type, reason in (
            (forged, SIGNED_RIM, "signature"),
            (signed(), RIM, "is signed"),
            (CORIM.encode(), SIGNED_RIM, "not signed"),
            (b"\xd2\x84", SIGNED_RIM, ""),
            (signed(), f'{SIGNED_RIM}; profile="tag:arm.com,2025:cca_realm#1.0.0"', "of profile"),
        ):
            answered = (await submit(here.web, body, media_type)).json()
            assert answered["status"] == "failed", media_type
            assert reason in answered["failure-reason"]
        assert await held(here) == []
        good = signed()
        other = signed(corims_of(PSA.with_measurement(0, b"\xaa" * 32))[0])
        # The same content again changes nothing, signed anew or not; other content under the same
        # identifier is refused.
        bodies = ((good, "success"), (good, "success"), (signed(), "success"), (other, "failed"))
        for body, outcome in bodies:
            assert (await submit(here.web, body)).json()["status"] == outcome
        assert len(await held(here)) == 1


@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/json", 415),
        ('application/rim+cbor; profile="tag:example.org,2026:other"', 415),
        ("nonsense", 400),
        ("", 415),
    ],
)
async def test_another_media_type_is_answered_with_those_that_are_taken(
    here: VerifierWorld, media_type: str, expected: int
) -> None:
    async with here.serve():
        refused = await submit(here.web, signed(), media_type)
        assert refused.status_code == expected
        if expected == 415:
            assert (
                'application/rim+cbor; profile="tag:arm.com,2025:psa#1.0.0"'
                in (refused.headers["accept"])
            )


async def test_a_submission_that_is_too_long_is_not_read_to_its_end(here: VerifierWorld) -> None:
    async with here.serve():
        assert (await submit(here.web, bytes(2_000_000))).status_code == 413
        assert await held(here) == []


async def test_a_withdrawal_counts_at_once_and_outlasts_a_restart(here: VerifierWorld) -> None:
    async with here.serve():
        await submit(here.web, signed())
        values = (await here.operator.get("/v1/reference-values")).json()
        value = next(each["id"] for each in values if each["kind"] == "reference_value")
        gone = await here.operator.delete("/v1/corims", params={"id": value, "why": "a bug"})
        assert gone.json()["reference_values"] == [value]
        assert await status(here) == "warning"
        assert (await here.operator.delete("/v1/corims", params={"id": value})).status_code == 409
    async with here.serve():
        assert await status(here) == "warning"


async def test_every_process_believes_the_same_at_once(here: VerifierWorld) -> None:
    """Two processes' worth of parts on one directory, as `--workers 2` has them."""
    async with here.serve(), AsyncExitStack() as stack:
        config = here.config()
        ports = VerifierPorts(
            registry=lambda: SqlRegistry(database_url(config)),
            book=here.share.book,
            session_key=here.share.session_key,
            board=here.share.board,
        )
        second = await stack.enter_async_context(running_verifier(config, ports, first=False))
        first_web = here.web
        here.web = await stack.enter_async_context(
            httpx.AsyncClient(base_url=second.url, trust_env=False)
        )
        assert await status(here) == "contraindicated"
        assert (await submit(first_web, signed())).json()["status"] == "success"
        assert await status(here) == "affirming"
        (corim,) = await held(here)
        await here.operator.delete("/v1/corims", params={"id": corim})
        assert await status(here) == "contraindicated"
        # A session that one process opened is used once, wherever its Evidence goes.
        session = await here.open(NONCE)
        assert (await here.submit(session, PSA.attest(NONCE), PSA.media_type)).status_code == 200
        here.web = first_web
        assert (await here.submit(session, PSA.attest(NONCE), PSA.media_type)).status_code == 409


async def test_a_new_result_key_is_announced_before_it_signs(here: VerifierWorld) -> None:
    async with here.serve():
        await submit(here.web, signed())
        made = (await here.operator.post("/v1/result-keys")).json()
        published = (await here.web.get("/.well-known/troth/result-keys")).json()["keys"]
        assert [each["kid"] for each in published][1:] == [made["kid"]]
        assert await status(here) == "affirming"
        again = await here.operator.post("/v1/result-keys")
        assert again.status_code == 409
