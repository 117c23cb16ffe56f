# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from troth.control_plane.config_reference import render_reference
from troth.control_plane.verification.config import VerifierConfig, load_verifier_config
from troth.errors import ConfigurationError
from troth.formats.ear import Dialect
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "verifier.md"
DIGEST, OTHER = "ab" * 32, "cd" * 32
GOOD = f"""
data_dir = "/var/lib/troth-verifier"
listen = "192.0.2.1:8443"
tls_certificate = "cert.pem"
tls_key = "key.pem"
client_ca = "ca.pem"

[result_seconds]
measured = 600

[[provisioning.clients]]
name = "factory"
token_sha256 = "{DIGEST}"

[[provisioning.clients]]
name = "maker"
certificate_sha256 = "{OTHER}"

[coserv]
upstream = "https://endorser.example"
upstream_keys = ["endorser.jwk"]
"""


def load(tmp_path: Path, text: str) -> VerifierConfig:
    path = tmp_path / "verifier.toml"
    path.write_text(text)
    return load_verifier_config(path)


def test_a_file_is_read_and_what_it_leaves_out_has_a_safe_default(tmp_path: Path) -> None:
    config = load(tmp_path, 'data_dir = "/var/lib/v"')
    assert config.address == ("127.0.0.1", 8443)
    assert config.admin_path == Path("/var/lib/v/admin.sock")
    assert not config.allow_simulator
    assert not config.allow_test_keys
    assert not config.insecure_http
    assert not config.public_metrics
    assert config.corims == []
    assert config.provisioning.clients == []
    assert not config.provisioning.unsigned
    assert config.coserv.upstream == ""
    assert config.challenge_response.default_dialect is Dialect.VERAISON


def test_lifetimes_are_changed_one_by_one(tmp_path: Path) -> None:
    lifetimes = load(tmp_path, GOOD).lifetimes()
    assert lifetimes[Tier.MEASURED] == timedelta(seconds=600)
    assert lifetimes[Tier.CONFIDENTIAL] == DEFAULT_LIFETIMES[Tier.CONFIDENTIAL].result


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.9.9.9:0"])
def test_plain_http_is_spoken_on_loopback(tmp_path: Path, listen: str) -> None:
    load(tmp_path, f'data_dir = "d"\nlisten = "{listen}"')


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "verifier.example:1"])
def test_plain_http_beyond_loopback_takes_a_deliberate_word(tmp_path: Path, listen: str) -> None:
    text = f'data_dir = "d"\nlisten = "{listen}"\n'
    with pytest.raises(ConfigurationError, match="loopback"):
        load(tmp_path, text)
    load(tmp_path, text + "insecure_http = true")


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ('data_dir = "/var/lib/troth-verifier"', "", "data_dir", "required"),
        ("client_ca", "cleint_ca", "cleint_ca", "client_ca"),
        ('"192.0.2.1:8443"', '"192.0.2.1"', "listen", "host:port"),
        ('"192.0.2.1:8443"', '"192.0.2.1:70000"', "listen", "host:port"),
        ('tls_key = "key.pem"', "", "tls_key", "both or neither"),
        ('tls_certificate = "cert.pem"', "", "tls_key", "both or neither"),
        ("measured = 600", "measured = 0", "result_seconds", ">= 1"),
        ("[result_seconds]", "workers = 65\n[result_seconds]", "workers", "<= 64"),
        (f'token_sha256 = "{DIGEST}"', "", "provisioning.clients[0]", "exactly one"),
        (
            f'token_sha256 = "{DIGEST}"',
            f'token_sha256 = "{DIGEST}"\ncertificate_sha256 = "{OTHER}"',
            "provisioning.clients[0]",
            "exactly one",
        ),
        (f'"{OTHER}"', f'"{DIGEST}"', "provisioning.clients[1]", "no other client"),
        (DIGEST, DIGEST.upper(), "provisioning.clients[0].token_sha256", "regex"),
        (DIGEST, "secret", "provisioning.clients[0].token_sha256", "regex"),
        ('client_ca = "ca.pem"', "", "provisioning.clients[1]", "client_ca"),
        ('upstream_keys = ["endorser.jwk"]', "", "coserv.upstream_keys", "keys"),
        ("https://endorser.example", "http://endorser.example", "coserv.upstream", "https"),
        ("https://endorser.example", "ftp://endorser.example", "coserv.upstream", "regex"),
    ],
)
def test_a_wrong_setting_is_named_with_file_key_and_accepted_form(
    tmp_path: Path, old: str, new: str, key: str, said: str
) -> None:
    load(tmp_path, GOOD)
    assert old in GOOD
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert caught.value.source.endswith("verifier.toml")
    assert key in caught.value.key
    assert said in caught.value.accepted


def test_client_certificates_are_looked_at_only_where_tls_is_spoken(tmp_path: Path) -> None:
    text = 'data_dir = "d"\nclient_ca = "ca.pem"'
    with pytest.raises(ConfigurationError, match="client_ca"):
        load(tmp_path, text)


def test_an_upstream_on_loopback_may_speak_plain_http(tmp_path: Path) -> None:
    load(tmp_path, GOOD.replace("https://endorser.example", "http://127.0.0.1:8080"))


def test_the_reference_has_every_key_as_the_struct_has_it() -> None:
    assert render_reference(VerifierConfig) in PAGE.read_text(), (
        "write it anew: "
        "python -m troth.control_plane.verification.reference docs/reference/verifier.md"
    )


def test_every_key_says_what_it_means() -> None:
    rows = render_reference(VerifierConfig).splitlines()[2:]
    assert len(rows) > 30
    assert all(row.split(" | ")[-1].removesuffix(" |").strip() for row in rows)
