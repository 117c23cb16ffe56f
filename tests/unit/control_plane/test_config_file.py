# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from troth.control_plane.agent.config import AgentConfig
from troth.control_plane.config_file import load_config, parse_config
from troth.errors import ConfigurationError

GOOD = """
[node]
name = "cloud"
[server]
url = "https://127.0.0.1:8443"
trust_bundle = "bundle.pem"
spiffe_id = "spiffe://example.org/troth/server"
[attester]
device = "device.json"
[envoy]
xds_socket = "/run/troth/xds.sock"
[[inbound]]
name = "orders"
listen = "127.0.0.1:9443"
upstream = "127.0.0.1:8080"
"""


def test_a_complete_file_is_read() -> None:
    config = parse_config(GOOD, AgentConfig, source="agent.toml")
    assert config.inbound[0].protocol == "http"
    assert config.clients == [], "without a rule nobody is admitted"


@pytest.mark.parametrize(
    ("before", "after", "key", "words"),
    [
        ('listen = "127.0.0.1:9443"', 'listen = "nowhere"', "inbound[0].listen", "HOST:PORT"),
        ('name = "cloud"', 'name = "Cloud"', "node.name", "lower-case"),
        ("[envoy]", "[envy]", "envy", "one of the keys node, server"),
        ("url =", "urll =", "server.urll", "one of the keys url"),
        ('spiffe_id = "spiffe', 'spiffe_id = "http', "server.spiffe_id", "spiffe://TRUST-DOMAIN"),
        ("device =", "kind = 3\ndevice =", "attester.kind", "str"),
        ('url = "https://127.0.0.1:8443"', "", "server.url", "required"),
        ("[node]", "[node", "", "TOML"),
    ],
)
def test_one_wrong_thing_is_named_with_key_and_accepted_form(
    before: str, after: str, key: str, words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(GOOD.replace(before, after, 1), AgentConfig, source="agent.toml")
    assert caught.value.key == key
    assert words in str(caught.value)
    assert str(caught.value).startswith("agent.toml")


def test_the_offending_value_is_shown() -> None:
    with pytest.raises(ConfigurationError, match="'nowhere'"):
        parse_config(GOOD.replace("127.0.0.1:9443", "nowhere"), AgentConfig, source="agent.toml")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml", AgentConfig)
