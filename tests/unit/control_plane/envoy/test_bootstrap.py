# SPDX-License-Identifier: Apache-2.0
"""The bootstrap; that Envoy takes it is seen wherever a test starts one."""

from __future__ import annotations

from pathlib import Path

import pytest

from troth.control_plane.envoy.bootstrap import bootstrap
from troth.errors import ConfigurationError

XDS, ADMIN = Path("/run/troth/xds"), Path("/run/troth/admin")


def test_nothing_but_the_agent_is_configured() -> None:
    config = bootstrap(node_id="edge", xds_socket=XDS, admin_socket=ADMIN)
    assert config["node"] == {"id": "edge", "cluster": "troth"}
    assert config["static_resources"].keys() == {"clusters"}
    (cluster,) = config["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"] == {"pipe": {"path": str(XDS)}}


def test_the_admin_interface_is_for_its_user_alone() -> None:
    config = bootstrap(node_id="edge", xds_socket=XDS, admin_socket=ADMIN)
    assert config["admin"]["address"] == {"pipe": {"path": str(ADMIN), "mode": 0o600}}


@pytest.mark.parametrize("path", [Path("relative"), Path("/" + "x" * 107)])
def test_a_path_that_no_socket_can_have_is_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="xds_socket"):
        bootstrap(node_id="edge", xds_socket=path, admin_socket=ADMIN)
    with pytest.raises(ConfigurationError, match="admin_socket"):
        bootstrap(node_id="edge", xds_socket=XDS, admin_socket=path)
