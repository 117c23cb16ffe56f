# SPDX-License-Identifier: Apache-2.0
"""The inventory over the real listeners: a double opt-in, asked at every decision."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from support.server_world import DOMAIN, World, join_body, new_key, open_session, world
from troth.control_plane.server.config import EntrySection
from troth.control_plane.server.onboarding_config import OnboardingSection
from troth.errors import ConfigurationError
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.keys import spki
from troth.mesh.claim_certificate import sign_claim

REQUIRED = OnboardingSection(inventory="required")


@pytest.fixture
async def here() -> AsyncIterator[World]:
    async with world() as made:
        made.options["onboarding"] = REQUIRED
        yield made


def instance(platform: Any) -> str:
    return f"instance:{platform.scheme}/{platform.instance_id.hex()}"


async def join(here: World, platform: Any, status: int = 200, **fields: Any) -> Any:
    async with here.web() as web:
        session = await open_session(web)
        response = await web.post(
            f"/v1/join/sessions/{session.session}", json=join_body(platform, session, **fields)
        )
    assert response.status_code == status, response.text
    return response.json()


async def newest_refusal(here: World) -> str:
    found: list[dict[str, Any]] = await here.ask("GET", "/v1/refusals?limit=1")
    return str(found[0]["message"])


async def add(here: World, device_id: str, *identities: str, **fields: Any) -> None:
    body = {"id": device_id, "identities": identities, **fields}
    added = await here.ask("POST", "/v1/devices", 201, json=body)
    assert added["state"] == "pending"


async def state(here: World) -> str:
    (node,) = await here.ask("GET", "/v1/nodes")
    return str(node["state"])


async def test_the_same_software_on_a_machine_that_is_not_ours_is_refused(here: World) -> None:
    ours, diverted = here.platform("edge"), here.platform("edge2")
    async with here.serve():
        await add(here, "edge-7", instance(ours))
        await here.ask("POST", "/v1/devices/edge-7/approve")
        await join(here, ours)
        await join(here, diverted, 403)
        assert "not in the inventory" in await newest_refusal(here)


async def test_a_device_has_to_present_itself_and_to_be_approved(here: World) -> None:
    platform = here.platform("edge")
    async with here.serve():
        await add(here, "edge-7", instance(platform), owner="plant 3")
        await join(here, platform, 403)
        assert "is not approved" in await newest_refusal(here)
        shown = await here.ask("GET", "/v1/devices/edge-7")
        assert shown["presented_at"]
        assert shown["bound"].startswith("psa:signer:")
        assert shown["owner"] == "plant 3"
        await here.ask("POST", "/v1/devices/edge-7/approve")
        await join(here, platform)


async def test_a_revoked_device_is_quarantined_at_once_and_does_not_renew(here: World) -> None:
    platform = here.platform("edge")
    async with here.serve():
        await add(here, "edge-7", instance(platform))
        await here.ask("POST", "/v1/devices/edge-7/approve")
        joined = await join(here, platform)
        outcome = await here.ask("POST", "/v1/devices/edge-7/revoke")
        assert outcome["quarantined"] == [joined["node_id"]]
        assert await state(here) == "quarantined"
        await join(here, platform, 403)
        assert "was revoked" in await newest_refusal(here)
        await here.ask("POST", "/v1/devices/edge-7/approve", 409)


async def test_machines_that_are_not_listed_join_by_their_entries_where_that_is_enough(
    here: World,
) -> None:
    here.options["onboarding"] = OnboardingSection()
    listed, other = here.platform("edge"), here.platform("edge2")
    async with here.serve():
        await add(here, "edge-7", instance(listed))
        await join(here, other)
        await join(here, listed, 403)


async def test_an_entry_may_select_a_device_of_the_inventory(here: World) -> None:
    platform = here.platform("edge")
    here.entries = [EntrySection(spiffe_id=f"spiffe://{DOMAIN}/edge", selectors=["device:edge-7"])]
    async with here.serve():
        await add(here, "edge-8", instance(platform))
        await here.ask("POST", "/v1/devices/edge-8/approve")
        await join(here, platform, 403)
        assert "device:edge-8" in await newest_refusal(here)
    async with world() as there:
        there.options["onboarding"] = REQUIRED
        platform = there.platform("edge")
        there.entries = here.entries
        async with there.serve():
            await add(there, "edge-7", instance(platform))
            await there.ask("POST", "/v1/devices/edge-7/approve")
            await join(there, platform)


# Join tokens


async def token_for(here: World, device_id: str, seconds: int = 0) -> str:
    path = f"/v1/devices/{device_id}/token"
    made = await here.ask("POST", path, 201, json={"seconds": seconds})
    return str(made["token"])


async def test_a_join_token_shows_once_which_device_it_is(here: World) -> None:
    platform, other = here.platform("edge"), here.platform("edge2")
    async with here.serve():
        await add(here, "edge-7")
        await here.ask("POST", "/v1/devices/edge-7/approve")
        token = await token_for(here, "edge-7")
        await join(here, platform, join_token=token)
        await join(here, platform)  # known by its Attester from now on
        await join(here, other, 403, join_token=token)
        assert "unknown, used or expired" in await newest_refusal(here)
        again = await token_for(here, "edge-7")
        await join(here, other, 403, join_token=again)
        assert "on another machine" in await newest_refusal(here)


async def test_a_wrong_or_replaced_token_is_refused(here: World) -> None:
    platform = here.platform("edge")
    async with here.serve():
        await add(here, "edge-7")
        await here.ask("POST", "/v1/devices/edge-7/approve")
        first = await token_for(here, "edge-7")
        second = await token_for(here, "edge-7")
        await join(here, platform, 403, join_token=first)
        await join(here, platform, 403, join_token=second[:-1] + "!")
        await join(here, platform, join_token=second)


async def test_only_the_digest_of_a_token_is_kept(here: World) -> None:
    async with here.serve():
        await add(here, "edge-7")
        token = await token_for(here, "edge-7")
        folder = here.directory / "data"
        kept = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert token.encode() not in kept
        assert hashlib.sha256(token.encode()).hexdigest().encode() in kept


# Claim certificates


class Maker:
    """A device maker's certification authority."""

    def __init__(self) -> None:
        self.key = new_key()
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Maker")])
        self._name = name
        self.root = self._certificate(name, self.key, ca=True)

    def idevid(self, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        serial = x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, "0017")
        return self._certificate(x509.Name([serial]), key, ca=False)

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, **usage), critical=True
            )
            .sign(self.key, hashes.SHA256())
        )

    def write(self, folder: Path) -> str:
        path = folder / "maker.pem"
        path.write_bytes(self.root.public_bytes(Encoding.PEM))
        return str(path)


async def claim(
    here: World,
    platform: Any,
    status: int,
    *,
    key: ec.EllipticCurvePrivateKey,
    certificate: x509.Certificate,
    nonce: bytes | None = None,
) -> None:
    svid_key = new_key()
    async with here.web() as web:
        session = await open_session(web)
        signature = sign_claim(
            key,
            svid_key=spki(svid_key.public_key()),
            nonce=nonce or decode_base64url(session.nonce, format="nonce"),
        )
        message = {
            "certificates": [encode_base64url(certificate.public_bytes(Encoding.DER))],
            "signature": encode_base64url(signature),
        }
        body = join_body(platform, session, key=svid_key, claim=message)
        response = await web.post(f"/v1/join/sessions/{session.session}", json=body)
    assert response.status_code == status, response.text


async def test_a_device_shows_the_certificate_of_its_maker(here: World) -> None:
    maker, stranger, key, platform = Maker(), Maker(), new_key(), here.platform("edge")
    other = here.platform("edge2")
    here.options["onboarding"] = OnboardingSection(
        inventory="required", claim_roots=[maker.write(here.directory)]
    )
    digest = hashlib.sha256(spki(key.public_key())).hexdigest()
    good: dict[str, Any] = {"key": key, "certificate": maker.idevid(key)}
    async with here.serve():
        await add(here, "edge-7", f"certificate:{digest}")
        await here.ask("POST", "/v1/devices/edge-7/approve")
        await claim(here, platform, 403, **good | {"key": new_key()})
        assert "did not sign the claim" in await newest_refusal(here)
        await claim(here, platform, 403, **good, nonce=b"another session's nonce, 32 octet")
        await claim(here, platform, 403, **good | {"certificate": stranger.idevid(key)})
        assert "no valid path" in await newest_refusal(here)
        unlisted = new_key()
        await claim(here, platform, 403, key=unlisted, certificate=maker.idevid(unlisted))
        await claim(here, platform, 200, **good)
        await claim(here, other, 403, **good)  # the certificate's key was carried over
        assert "on another machine" in await newest_refusal(here)
        await join(here, platform)


async def test_roots_of_claims_that_cannot_be_read_stop_the_server(here: World) -> None:
    here.options["onboarding"] = OnboardingSection(claim_roots=[str(here.directory / "none.pem")])
    with pytest.raises(ConfigurationError, match="claim_roots"):
        async with here.serve():
            pass


async def test_a_device_that_is_not_well_described_is_not_entered(here: World) -> None:
    async with here.serve():
        for body in (
            {"id": "Edge 7"},
            {"id": "edge-7", "identities": ["ek:12"]},
            {"id": "edge-7", "identities": ["instance:psa/01", "instance:psa/01"]},
            {"id": "edge-7", "class_id": "xyz"},
        ):
            await here.ask("POST", "/v1/devices", 400, json=body)
        await here.ask("GET", "/v1/devices/edge-7", 409)
        assert await here.ask("GET", "/v1/devices") == []


async def test_a_revocation_by_another_server_does_not_cross_an_admission(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = here.platform("edge")
    async with here.serve() as running:
        await add(here, "edge-7", instance(platform))
        await here.ask("POST", "/v1/devices/edge-7/approve")
        registry = running.context.registry
        apply = registry.apply

        def late(change: Any, **options: Any) -> Any:
            monkeypatch.setattr(registry, "apply", apply)
            registry.revoke_device("edge-7", actor="another server", at=datetime.now(UTC))
            return apply(change, **options)

        monkeypatch.setattr(registry, "apply", late)
        await join(here, platform, 403)
        assert "was revoked" in await newest_refusal(here)
        assert await here.ask("GET", "/v1/nodes") == []
