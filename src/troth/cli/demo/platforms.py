# SPDX-License-Identifier: Apache-2.0
"""The demo's three simulated platforms, and what their makers publish about them.

A cloud node with Arm CCA, an edge node with PSA, and a third of the edge node's model whose
bootloader was changed. The last is registered like the others: it is refused for its state alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from troth.endorsement.build import AttestKey, Component, cca_corims, psa_corim
from troth.evidence.simulator.device_file import to_json
from troth.evidence.simulator.options import CcaOptions, PsaOptions, SimulatedComponent
from troth.evidence.simulator.platform import SimulatedPlatform

__all__ = ["CHANGED", "CLOUD", "EDGE", "EDGE_CORIM", "Platforms"]

CLOUD, EDGE, CHANGED = "cloud", "edge", "changed"
REPLICAS = ("edge-1", "edge-2")
CLOUD_CORIM, EDGE_CORIM, KEYS_CORIM = "cloud-reference", "edge-reference", "edge-keys"
_CHANGED_DIGEST = bytes.fromhex("bad0" * 16)


@dataclass(frozen=True, slots=True)
class Platforms:
    """The platforms by the name of their node: one in the cloud, the others of one edge model."""

    by_name: dict[str, SimulatedPlatform]

    @classmethod
    def create(cls, random: Callable[[int], bytes]) -> Platforms:
        """Make them; `random` determines their keys."""
        edge = PsaOptions(model="edge-gw")
        changed = SimulatedPlatform.create(edge, random=random)
        return cls(
            {
                CLOUD: SimulatedPlatform.create(CcaOptions(model="cloud"), random=random),
                EDGE: SimulatedPlatform.create(edge, random=random),
                CHANGED: changed.with_measurement(0, _CHANGED_DIGEST),
            }
        )

    @classmethod
    def replicas(cls, random: Callable[[int], bytes]) -> Platforms:
        """Make a cloud node and two edge nodes that differ in nothing but their keys."""
        edge = PsaOptions(model="edge-gw")
        return cls(
            {
                CLOUD: SimulatedPlatform.create(CcaOptions(model="cloud"), random=random),
                **{name: SimulatedPlatform.create(edge, random=random) for name in REPLICAS},
            }
        )

    @property
    def edges(self) -> list[SimulatedPlatform]:
        """The platforms at the edge; the first one runs what its maker meant."""
        return [platform for name, platform in self.by_name.items() if name != CLOUD]

    def write_devices(self, directory: Path) -> dict[str, Path]:
        """Write one device file per platform; they hold private keys, so mode 0600."""
        files = {}
        for name, platform in self.by_name.items():
            path = directory / f"{name}-device.json"
            path.touch(mode=0o600)
            path.write_text(to_json(platform))
            files[name] = path
        return files

    def write_corims(self, directory: Path) -> list[Path]:
        """Write what the makers publish: reference values, and the attestation keys."""
        cloud = self.by_name[CLOUD].reference()
        others = [platform.reference() for platform in self.edges]
        edge = others[0]
        corims = [
            *cca_corims(
                corim_id=CLOUD_CORIM,
                implementation_id=cloud.implementation_id,
                components=_components(cloud.components),
                rim=cloud.rim,
                rems=cloud.rems,
                rpv=cloud.personalization_value,
                config=cloud.config,
                keys=[AttestKey(instance_id=cloud.instance_id, key=cloud.public_key_pem.encode())],
                vendor="Simulated silicon",
                model="cloud",
            ),
            psa_corim(
                corim_id=EDGE_CORIM,
                implementation_id=edge.implementation_id,
                components=_components(edge.components),
                vendor="Simulated silicon",
                model="edge-gw",
            ),
            psa_corim(
                corim_id=KEYS_CORIM,
                implementation_id=edge.implementation_id,
                keys=[
                    AttestKey(instance_id=each.instance_id, key=each.public_key_pem.encode())
                    for each in others
                ],
                vendor="Simulated silicon",
                model="edge-gw",
            ),
        ]
        paths = []
        for number, corim in enumerate(corims):
            path = directory / f"{number}.corim.cbor"
            path.write_bytes(corim.encode())
            paths.append(path)
        return paths


def _components(components: tuple[SimulatedComponent, ...]) -> list[Component]:
    return [
        Component(
            digest=each.digest, signer_id=each.signer_id, name=each.name, version=each.version
        )
        for each in components
    ]
