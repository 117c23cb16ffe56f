# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from troth.control_plane.config_reference import render_reference
from troth.control_plane.server.config import ServerConfig, load_server_config
from troth.errors import ConfigurationError
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "server.md"
GOOD = """
trust_domain = "example.org"
data_dir = "/var/lib/troth"

[lifetimes.confidential]
result_seconds = 60

[[entries]]
spiffe_id = "spiffe://example.org/edge"
selectors = ["instance:01ab", "scheme:psa"]
"""


def load(tmp_path: Path, text: str) -> ServerConfig:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return load_server_config(path)


def test_a_file_is_read_and_what_it_leaves_out_has_a_safe_default(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.address == ("127.0.0.1", 8444)
    assert config.admin_path == Path("/var/lib/troth/admin.sock")
    assert not config.allow_simulator
    assert not config.allow_test_keys
    assert not config.public_metrics
    assert config.verifier.corims == []
    assert config.registration_entries()[0].min_tier is Tier.MEASURED


def test_lifetimes_are_changed_one_by_one(tmp_path: Path) -> None:
    lifetimes = load(tmp_path, GOOD).tier_lifetimes()
    assert lifetimes[Tier.CONFIDENTIAL].result == timedelta(seconds=60)
    assert lifetimes[Tier.CONFIDENTIAL].svid == DEFAULT_LIFETIMES[Tier.CONFIDENTIAL].svid
    assert lifetimes[Tier.MEASURED] == DEFAULT_LIFETIMES[Tier.MEASURED]


def test_an_entrys_name_does_not_hang_on_the_order_of_its_selectors(tmp_path: Path) -> None:
    swapped = GOOD.replace('"instance:01ab", "scheme:psa"', '"scheme:psa", "instance:01ab"')
    one, other = (load(tmp_path, text).registration_entries()[0] for text in (GOOD, swapped))
    assert one.id == other.id
    moved = load(tmp_path, GOOD.replace("/edge", "/cloud")).registration_entries()[0]
    assert moved.id != one.id


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ('trust_domain = "example.org"', "", "trust_domain", "required"),
        ('trust_domain = "example.org"', "trust_domain = 1", "trust_domain", "str"),
        ("[lifetimes", 'lsten = "x"\n[lifetimes', "lsten", "listen"),
        ("[lifetimes", 'listen = "example.org"\n[lifetimes', "listen", "host:port"),
        ("[lifetimes", 'listen = "a:70000"\n[lifetimes', "listen", "host:port"),
        ("result_seconds = 60", "result_seconds = 0", "lifetimes", ">= 1"),
        ("[lifetimes.confidential]", "[lifetimes.best]", "lifetimes.best", "registered"),
        ("[[entries]]", "[[entries]]\nmin_tier = 'high'", "entries[0].min_tier", "enum"),
        ("instance:01ab", "instance:01AB", "entries[0].selectors", "instance:HEX"),
        ('"instance:01ab", ', "", "entries[0].selectors", "any machine"),
        ("spiffe://example.org/edge", "spiffe://other/edge", "entries[0].spiffe_id", "example.org"),
    ],
)
def test_a_wrong_setting_is_named_with_file_key_and_accepted_form(
    tmp_path: Path, old: str, new: str, key: str, said: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert caught.value.source.endswith("server.toml")
    assert key in caught.value.key
    assert said in caught.value.accepted


def test_the_reference_has_every_key_as_the_struct_has_it() -> None:
    table = render_reference(ServerConfig)
    assert table in PAGE.read_text(), (
        "write it anew: python -m troth.control_plane.server.reference docs/reference/server.md"
    )


def test_every_key_says_what_it_means() -> None:
    rows = render_reference(ServerConfig).splitlines()[2:]
    assert len(rows) > 30
    assert all(row.split(" | ")[-1].removesuffix(" |").strip() for row in rows)
