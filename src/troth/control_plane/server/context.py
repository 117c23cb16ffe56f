# SPDX-License-Identifier: Apache-2.0
"""What the routes work with, put together once when the server starts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from troth.clock import Clock
from troth.control_plane.server.appraisal import EvidenceAppraiser
from troth.control_plane.server.bundles import ServerBundles
from troth.control_plane.server.config import ServerConfig
from troth.control_plane.server.endorsement_set import EndorsementSet
from troth.control_plane.server.federations import Federations
from troth.control_plane.server.feed_hub import FeedHub
from troth.control_plane.server.inventory import Inventory
from troth.control_plane.server.issuer import SvidIssuer
from troth.control_plane.server.join import JoinService
from troth.control_plane.server.keys import ServerKeys
from troth.control_plane.server.logical_tees import LogicalTees
from troth.control_plane.server.members import Members
from troth.control_plane.server.metrics import ServerMetrics
from troth.control_plane.server.operators import Operators
from troth.control_plane.server.placements import Placements
from troth.control_plane.server.policy_routes import PolicyDesk
from troth.control_plane.server.rate_limit import RateLimiter
from troth.control_plane.server.standard_routes import EmbeddedApis
from troth.control_plane.server.worker import Worker
from troth.control_plane.server.workloads import Workloads
from troth.mesh.registry import Registry

__all__ = ["ServerContext"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext:
    """The parts of a running server."""

    config: ServerConfig
    clock: Clock
    registry: Registry
    registry_worker: Worker
    appraiser: EvidenceAppraiser
    appraisal_worker: Worker
    endorsements: EndorsementSet
    hub: FeedHub
    issuer: SvidIssuer
    keys: ServerKeys
    joins: JoinService
    inventory: Inventory
    admission: asyncio.Lock
    members: Members
    operators: Operators
    standard: EmbeddedApis
    bundles: ServerBundles
    federations: Federations
    workloads: Workloads
    logical_tees: LogicalTees
    placements: Placements
    policies: PolicyDesk
    limiter: RateLimiter
    metrics: ServerMetrics
