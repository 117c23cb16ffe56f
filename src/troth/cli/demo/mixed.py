# SPDX-License-Identifier: Apache-2.0
"""The demo's mixed pair: one end asks for an identity alone, the other for the peer's state.

The cloud node calls the edge node's ticker over raw TCP. The edge node takes its caller's SVID for
enough; the cloud node wants an Attestation Result, and where the one that the edge node brings
along has become too old for it, fresh Evidence, which it has checked by the server's Verifier.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from troth.cli.demo.observe import find_connection, peer_view, tcp_stream
from troth.cli.demo.platforms import CLOUD, EDGE
from troth.cli.demo.setting import PASSPORT_SECONDS, NodeSetting
from troth.console.report import DirectionReport
from troth.control_plane.envoy.access_log import Direction
from troth.errors import UnavailableError
from troth.mesh.passport import TrustedVerifier

__all__ = ["MIXED_TITLE", "RESCUED_TITLE", "mixed_call", "mixed_well", "too_old_at", "wait_until"]

MIXED_TITLE = "Mixed pair: edge asked cloud for its identity alone, cloud asked edge for its state"
RESCUED_TITLE = "A background check rescued the edge node's passport, which had become too old"

_SERVICE = "ticker"
_FLOW_SECONDS = 15.0
# Tokens carry whole seconds.
_MARGIN_SECONDS = 1.5
_SAID_EVERY_SECONDS = 3.0


async def mixed_call(
    nodes: dict[str, NodeSetting], verifier: TrustedVerifier, *, outcome: str
) -> DirectionReport:
    """Open the ticker, and return what both Envoys logged about that connection.

    Raises:
        UnavailableError: no data came, or nothing was logged.
    """
    began = datetime.now(UTC)
    stream = await tcp_stream(nodes[CLOUD].tcp_port)
    try:
        async with asyncio.timeout(_FLOW_SECONDS):
            await stream.flowing.wait()
        client = await find_connection(
            nodes[CLOUD].access_log, Direction.OUTBOUND, service=_SERVICE, after=began
        )
        server = await find_connection(
            nodes[EDGE].access_log, Direction.INBOUND, service=_SERVICE, after=began
        )
    except TimeoutError as exc:
        raise UnavailableError("the ticker sent nothing") from exc
    finally:
        await stream.close()
    return DirectionReport(
        caller=CLOUD,
        callee=EDGE,
        protocol="TCP",
        outcome=outcome,
        client_saw=peer_view(client, verifier),
        server_saw=peer_view(server, verifier),
    )


def mixed_well(call: DirectionReport) -> bool:
    """Say whether each side saw what it had asked for, and no more."""
    state, identity = call.client_saw, call.server_saw
    return (
        state.status == "affirming"
        and state.spiffe_id.endswith(f"/{EDGE}")
        and identity.status == "none"
        and identity.spiffe_id.endswith(f"/{CLOUD}")
    )


def too_old_at(call: DirectionReport) -> float:
    """Return the monotonic second at which the edge node's passport will not be taken any more."""
    left = PASSPORT_SECONDS - (call.client_saw.result_age_seconds or 0.0)
    return time.monotonic() + left + _MARGIN_SECONDS


async def wait_until(second: float, say: Callable[[str], None]) -> None:
    """Wait for a monotonic second, and say so now and then."""
    while (left := second - time.monotonic()) > 0:
        say(f"waiting {left:.0f} s until the edge node's passport is too old for the cloud node")
        await asyncio.sleep(min(_SAID_EVERY_SECONDS, left))
