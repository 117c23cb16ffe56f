# SPDX-License-Identifier: Apache-2.0
"""INSECURE platform simulators for PSA and CCA: for tests, demonstrations and learning."""

from __future__ import annotations

from troth.evidence.simulator.device_file import from_json, to_json
from troth.evidence.simulator.keys import SimulatedKeys
from troth.evidence.simulator.options import (
    CcaOptions,
    PsaOptions,
    SimulatedComponent,
    default_component,
)
from troth.evidence.simulator.platform import SimulatedPlatform, SimulatedReference

__all__ = [
    "CcaOptions",
    "PsaOptions",
    "SimulatedComponent",
    "SimulatedKeys",
    "SimulatedPlatform",
    "SimulatedReference",
    "default_component",
    "from_json",
    "to_json",
]
