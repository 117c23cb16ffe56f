# SPDX-License-Identifier: Apache-2.0
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from support.command import troth
from troth.control_plane.agent.config import AgentConfig
from troth.control_plane.agent.delegations import DelegationFiles
from troth.control_plane.config_file import parse_config
from troth.errors import ConfigurationError

_CONFIG = """
[node]
name = "gateway"
site = "{site}"
[server]
url = "https://127.0.0.1:1"
trust_bundle = "unused"
spiffe_id = "spiffe://mesh.example/troth/server"
[attester]
device = "unused"
[[verifiers]]
name = "{name}"
keys = "{keys}"
delegation = "{delegation}"
elsewhere = {elsewhere}
"""
LATER = timedelta(days=8)


def _files(
    directory: Path,
    *,
    site: str = "plant-7",
    name: str = "plant-7",
    keys: str = "lead.pem",
    delegation: str = "plant-7.jwt",
    elsewhere: str = "false",
) -> DelegationFiles:
    text = _CONFIG.format(
        site=site, name=name, keys=keys, delegation=delegation, elsewhere=elsewhere
    )
    return DelegationFiles(parse_config(text, AgentConfig, source="test"), directory)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with a delegation made by the command, and the keys around it."""
    for name in ("lead", "stranger", "site"):
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.key").write_bytes(private)
        (tmp_path / f"{name}.pem").write_bytes(public)
    _create(tmp_path)
    return tmp_path


def _create(directory: Path, *more: str) -> None:
    made = troth(
        *("delegation", "create", "plant-7", "--key", str(directory / "lead.key")),
        *("--to", str(directory / "site.pem"), "--site", "plant-7", "--scheme", "psa"),
        *("--trust-domain", "mesh.example", "--out", str(directory / "plant-7.jwt"), *more),
    )
    assert made.code == 0, made.err
    assert "plant-7 judges psa for plant-7, at best measured" in made.out


def test_a_verifier_is_believed_as_its_delegation_says(directory: Path) -> None:
    files, now = _files(directory), datetime.now(UTC)
    files.check(now=now)
    (believed,) = files.believed(now=now)
    assert believed.name == "plant-7"
    assert believed.delegation is not None
    assert believed.delegation.schemes == ("psa",)


def test_one_that_has_run_out_stops_nothing_and_counts_for_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, later = _files(directory), datetime.now(UTC) + LATER
    files.check(now=later)
    with caplog.at_level(logging.WARNING):
        assert not files.believed(now=later)
    assert "Verifier plant-7 is not believed now" in caplog.text


def test_a_new_delegation_is_taken_without_a_restart(directory: Path) -> None:
    files, later = _files(directory), datetime.now(UTC) + LATER
    assert not files.believed(now=later)
    _create(directory, "--days", "30", "--force")
    assert files.believed(now=later)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"site": "plant-8"}, "judges for site plant-7; this side is at plant-8"),
        ({"site": ""}, "this side is at no site"),
        ({"name": "plant-9"}, "the Verifier's name in this configuration, plant-9"),
        ({"keys": "stranger.pem"}, "signature does not verify"),
        ({"keys": ""}, "the keys of those who may delegate"),
        ({"keys": "absent.pem"}, "No such file"),
        ({"delegation": "absent.jwt"}, "No such file"),
        ({"delegation": "lead.pem"}, "three parts"),
    ],
)
def test_a_wrong_one_stops_the_start_and_says_why(
    directory: Path, changes: dict[str, str], why: str
) -> None:
    files, now = _files(directory, **changes), datetime.now(UTC)
    with pytest.raises(ConfigurationError, match=why):
        files.check(now=now)
    if changes.get("keys") != "":
        assert not files.believed(now=now)


def test_a_site_elsewhere_is_believed_where_that_is_said(directory: Path) -> None:
    assert _files(directory, site="plant-8", elsewhere="true").believed(now=datetime.now(UTC))


def test_a_delegation_is_shown_to_who_has_the_key_and_to_nobody_else(directory: Path) -> None:
    token = str(directory / "plant-7.jwt")
    shown = troth("delegation", "show", token, "--key", str(directory / "lead.pem"))
    assert shown.code == 0
    assert "measured" in shown.out
    refused = troth("delegation", "show", token, "--key", str(directory / "stranger.pem"))
    assert refused.code == 2
    assert not refused.out
