# SPDX-License-Identifier: Apache-2.0
"""TLS of the Verifier: certificates from files, renewed under it, and those of clients."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.appraisal import corims_of
from support.verifier_world import VerifierWorld, verifier_world
from support.waiting import until
from support.x509 import Plan, sign, signing
from troth.control_plane.verification.listeners import FileTls
from troth.control_plane.verification.sections import ProvisionerSection, ProvisioningSection
from troth.errors import ConfigurationError
from troth.evidence.simulator import PsaOptions, SimulatedPlatform

NOW = datetime.now(UTC)
VALID: dict[str, Any] = {
    "not_before": NOW - timedelta(hours=1),
    "not_after": NOW + timedelta(hours=1),
}
ROOT = signing(**VALID)
CLIENTS = signing(subject="clients", **VALID)
STRANGERS = signing(subject="strangers", **VALID)
SUBMIT = "/endorsement-provisioning/v1/submit"


def leaf(name: str, **changes: Any) -> Plan:
    return Plan(subject=name, uris=(), dns_names=(name,), **{**VALID, **changes})


def pem(*certificates: x509.Certificate) -> str:
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in certificates)


def key_pem(plan: Plan) -> str:
    return plan.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class Files:
    """The files of one listener."""

    def __init__(self, directory: Path) -> None:
        self.certificate, self.key = directory / "tls.pem", directory / "tls.key.pem"
        self.client_ca = directory / "clients.pem"
        self.client_ca.write_text(pem(sign(CLIENTS)))

    def renew(self, name: str) -> None:
        plan = leaf(name)
        for path, text in (
            (self.certificate, pem(sign(plan, ROOT))),
            (self.key, key_pem(plan)),
        ):
            # A rename, as tools that renew do it; the time of change differs in any case.
            beside = path.with_suffix(".new")
            beside.write_text(text)
            beside.replace(path)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[tuple[VerifierWorld, Files]]:
    files = Files(tmp_path)
    files.renew("verifier.example")
    async with verifier_world() as made:
        made.options |= {
            "tls_certificate": str(files.certificate),
            "tls_key": str(files.key),
            "client_ca": str(files.client_ca),
        }
        yield made, files


def client(world: VerifierWorld) -> httpx.AsyncClient:
    """Return a client that believes our root."""
    context = ssl.create_default_context(cadata=pem(sign(ROOT)))
    return httpx.AsyncClient(base_url=world.running.url, verify=context, trust_env=False)


async def live(web: httpx.AsyncClient, name: str = "verifier.example") -> int:
    response = await web.get("/livez", extensions={"sni_hostname": name})
    return response.status_code


async def test_it_speaks_tls_under_the_certificate_of_the_file(
    here: tuple[VerifierWorld, Files],
) -> None:
    world, _ = here
    async with world.serve() as running:
        assert running.url.startswith("https://")
        async with client(world) as web:
            assert await live(web) == 200
        async with client(world) as web:
            with pytest.raises(httpx.ConnectError):
                await live(web, "other.example")
        plain = running.url.replace("https://", "http://")
        async with httpx.AsyncClient(base_url=plain, trust_env=False) as web:
            with pytest.raises(httpx.HTTPError):
                await web.get("/livez")


async def test_a_renewed_certificate_is_taken_over_and_a_damaged_one_is_not(
    here: tuple[VerifierWorld, Files],
) -> None:
    world, files = here

    async def serves(name: str) -> bool:
        async with client(world) as web:
            try:
                return await live(web, name) == 200
            except httpx.ConnectError:
                return False

    async with world.serve():
        assert await serves("verifier.example")
        files.renew("renewed.example")
        await until(lambda: serves("renewed.example"), seconds=15, interval=0.1)
        tls = FileTls(str(files.certificate), str(files.key))
        files.certificate.write_text("damaged")
        tls.reload_if_changed()  # the same code, without waiting for what must not happen
        assert await serves("renewed.example")


async def test_a_client_certificate_that_is_configured_may_provision(
    here: tuple[VerifierWorld, Files], tmp_path: Path
) -> None:
    world, _ = here
    known, unknown = leaf("maker"), leaf("other")
    certificate = sign(known, CLIENTS)
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
    world.options["provisioning"] = ProvisioningSection(
        clients=[ProvisionerSection(name="maker", certificate_sha256=digest)], unsigned=True
    )
    (corim,) = corims_of(SimulatedPlatform.create(PsaOptions(), random=os.urandom))

    async def submit(chain: x509.Certificate | None, plan: Plan) -> httpx.Response:
        context = ssl.create_default_context(cadata=pem(sign(ROOT)))
        if chain is not None:
            path = tmp_path / "client.pem"
            path.write_text(pem(chain) + key_pem(plan))
            context.load_cert_chain(path)
        async with httpx.AsyncClient(
            base_url=world.running.url, verify=context, trust_env=False
        ) as web:
            return await web.post(
                SUBMIT,
                content=corim.encode(),
                headers={"content-type": "application/rim+cbor"},
                extensions={"sni_hostname": "verifier.example"},
            )

    async with world.serve():
        assert (await submit(None, known)).status_code == 401
        assert (await submit(sign(unknown, CLIENTS), unknown)).status_code == 401
        with pytest.raises(httpx.HTTPError):
            await submit(sign(known, STRANGERS), known)
        response = await submit(certificate, known)
        assert response.json()["status"] == "success", response.text


@pytest.mark.parametrize("broken", ["certificate", "key", "client_ca", "absent", "other key"])
def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path, broken: str) -> None:
    files = Files(tmp_path)
    files.renew("verifier.example")
    FileTls(str(files.certificate), str(files.key), client_ca=str(files.client_ca))
    if broken == "absent":
        files.certificate.unlink()
    elif broken == "other key":
        files.key.write_text(key_pem(leaf("x")))
    else:
        getattr(files, broken).write_text("nonsense")
    with pytest.raises(ConfigurationError):
        FileTls(str(files.certificate), str(files.key), client_ca=str(files.client_ca))
