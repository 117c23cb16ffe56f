# SPDX-License-Identifier: Apache-2.0
"""SPIRE and Troth fetch each other's bundle by `https_web`: the host's name and the web's roots."""

from __future__ import annotations

import asyncio
import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from support.ports import reserved_ports
from support.server_world import DOMAIN as MESH
from support.server_world import new_key, world
from support.spire import DOMAIN, attested_spire
from support.spire_federation import federate_at_spire
from support.waiting import until
from troth.adapters.bundle_endpoint import HttpsBundleFetcher
from troth.control_plane.server.trust_config import FederationSection


def web_certificate(directory: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that is its own authority, and its key."""
    key, now = new_key(), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "web")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "web.pem", directory / "web.key"
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, private


async def test_each_fetches_the_others_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = web_certificate(tmp_path)
    # Go takes these for the operating system's roots.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with reserved_ports(1) as (port,):
        endpoint = f"""federation {{
    bundle_endpoint {{
      address = "127.0.0.1"
      port = {port}
      profile "https_web" {{
        serving_cert_file {{
          cert_file_path = "{certificate}"
          key_file_path = "{key}"
          file_sync_interval = "1h"
        }}
      }}
    }}
  }}"""
    section = FederationSection(
        listen="127.0.0.1:0", profile="https_web", certificate=str(certificate), key=str(key)
    )
    async with attested_spire(more=endpoint) as spire, world() as here:
        here.options |= {"federation": section}
        async with here.serve(fetcher=HttpsBundleFetcher(certificate)):
            wanted = {"endpoint_url": f"https://127.0.0.1:{port}/", "profile": "https_web"}
            await here.ask("PUT", f"/v1/bundles/{DOMAIN}", json=wanted)
            status = await here.ask("POST", f"/v1/bundles/{DOMAIN}/refresh")
            assert status["problem"] == "", status
            await federate_at_spire(spire, here, "https_web")

            async def fetched() -> bool:
                await asyncio.to_thread(spire.spire.ask, "federation", "refresh", "-id", MESH)
                listed = await asyncio.to_thread(
                    spire.spire.ask, "bundle", "list", "-format", "spiffe"
                )
                return MESH in listed.stdout and "jwt-svid" in listed.stdout

            await until(fetched, seconds=30, interval=0.5)
