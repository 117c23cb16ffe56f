# SPDX-License-Identifier: Apache-2.0
"""The real spire-server and spire-agent attest nodes by Evidence, through our plugins."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.spire import DOMAIN, AttestedSpire, attested_spire, go_client
from support.waiting import until
from troth.cli.demo.platforms import CHANGED, CLOUD, EDGE
from troth.formats.keys import load_keys
from troth.identity.attestation_result import verify_attestation_result
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle, TrustBundleSet
from troth.identity.x509_path import verify_x509_svid
from troth.identity.x509_svid import X509Svid

WEB = f"spiffe://{DOMAIN}/web"


def values(agent: dict[str, Any]) -> set[str]:
    return {each["value"] for each in agent["selectors"] if each["type"] == "troth"}


def logged(here: AttestedSpire, text: str) -> bool:
    return text in here.log("server")


async def test_psa_and_cca_nodes_attest_and_a_workload_on_them_gets_its_svid() -> None:
    async with attested_spire() as here:
        here.start_agent(EDGE)
        here.start_agent(CLOUD)
        agents = {each["id"]["path"].split("/")[4]: each for each in await here.attested(2)}
        assert {"tier:measured", "scheme:psa", "insecure:true"} <= values(agents["psa"])
        assert {"tier:confidential", "tier-at-least:measured"} <= values(agents["cca"])
        assert all(each["can_reattest"] for each in agents.values())
        edge = here.platforms.by_name[EDGE].instance_id.hex()
        assert f"instance:{edge}" in values(agents["psa"])

        spire = here.spire
        shown = spire.ask(
            "agent", "show", "-spiffeID", f"spiffe://{DOMAIN}{agents['cca']['id']['path']}"
        )
        assert "troth:tier:confidential" in shown.stdout
        # A node alias by tier: workloads are registered for what a node is, not for which.
        alias = ["-node", "-spiffeID", f"spiffe://{DOMAIN}/confidential"]
        made = spire.ask("entry", "create", *alias, "-selector", "troth:tier:confidential")
        assert made.returncode == 0, made.stderr
        parent = ["-parentID", f"spiffe://{DOMAIN}/confidential", "-spiffeID", WEB]
        made = spire.ask("entry", "create", *parent, "-selector", f"unix:uid:{os.getuid()}")
        assert made.returncode == 0, made.stderr
        assert await fetched(spire.agent_socket(CLOUD)) == f"{WEB} {DOMAIN}"
        assert await said(spire.agent_socket(EDGE), "svid") is None


async def said(socket: Path, *words: str) -> str | None:
    """Return what the client in go-spiffe prints; None where it gets no identity at once."""
    process = await go_client(socket, *words)
    try:
        out, _ = await _within(process, 3)
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return out.decode().strip() if process.returncode == 0 else None


async def _within(process: Any, seconds: float) -> Any:
    async with asyncio.timeout(seconds):
        return await process.communicate()


async def fetched(socket: Path) -> str:
    process = await go_client(socket, "svid")
    out, err = await _within(process, 40)
    assert process.returncode == 0, err
    return str(out.decode().strip())


async def test_an_agents_svid_carries_the_result_about_its_key() -> None:
    async with attested_spire() as here:
        here.start_agent(CLOUD)
        await here.attested(1)
        directory = here.spire.agent_directory(CLOUD)
        kept = directory / "agent-data.json"
        await until(lambda: kept.exists() and b"svid" in kept.read_bytes(), seconds=20)
        chain = base64.b64decode(json.loads(kept.read_text())["svid"][0])
        shown = here.spire.ask("bundle", "show", "-format", "spiffe").stdout.encode()
        bundle = TrustBundle.decode(shown, trust_domain=TrustDomain(DOMAIN))
        now = datetime.now(UTC)
        verified = verify_x509_svid(X509Svid.decode(chain), TrustBundleSet([bundle]), now=now)
        ear = verify_attestation_result(
            verified,
            load_keys((here.state / "result.key").read_bytes(), source="result.key"),
            now=now,
            max_age=timedelta(minutes=5),
            leeway=timedelta(seconds=5),
        )
        assert ear.troth is not None
        assert (ear.troth.scheme, ear.troth.tier) == ("cca", "confidential")


async def test_changed_firmware_is_refused_and_the_operator_reads_why() -> None:
    async with attested_spire() as here:
        here.start_agent(CHANGED)
        await until(lambda: logged(here, "node attestation refused"), seconds=40, interval=0.2)
        assert here.spire.agents() == []
        assert re.search(
            r"node attestation refused: spiffe://\S+/psa/\S+ is (warning|contraindicated): ",
            here.log("server"),
        )
        assert "attestation refused: refused" in here.log(CHANGED)
        assert "/psa/" not in here.log(CHANGED)


async def test_evidence_that_covers_anothers_key_gets_no_certificate() -> None:
    """A relay: an agent answers the challenge with Evidence of a machine that it is not on."""
    async with attested_spire() as here:
        here.start_agent(EDGE)
        await here.attested(1)
        here.start_agent("thief", device=EDGE, keys_of=EDGE)
        refused = "asks for a certificate for a key that its Evidence does not cover"
        await until(lambda: logged(here, refused), seconds=40, interval=0.2)
        assert not (here.spire.agent_directory("thief") / "api.sock").exists()


async def test_nodes_attest_again_and_lose_their_svid_with_the_reference_values() -> None:
    async with attested_spire(agent_ttl="20s") as here:
        here.start_agent(EDGE)
        await here.attested(1)
        first = here.spire.agents()[0]["x509svid_serial_number"]
        await until(
            lambda: here.spire.agents()[0]["x509svid_serial_number"] != first,
            seconds=40,
            interval=0.5,
        )
        corims = sorted(here.spire.directory.glob("*.corim.cbor"))
        for path in corims[:-1]:
            path.write_bytes(corims[-1].read_bytes())
        await until(lambda: logged(here, "node attestation refused"), seconds=40, interval=0.5)
