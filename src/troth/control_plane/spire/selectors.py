# SPDX-License-Identifier: Apache-2.0
"""What SPIRE's registration entries can say about an attested node."""

from __future__ import annotations

from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.mesh.registration_entry import device_key
from troth.verifier.result import AssuranceTier, AttestationResult

__all__ = ["AGENT_PREFIX", "agent_id", "selector_values"]

AGENT_PREFIX = "/spire/agent/troth/"
"""Path under which SPIRE's agents of this node attestor are."""


def agent_id(domain: TrustDomain, result: AttestationResult) -> SpiffeId:
    """Return the SPIFFE ID of the agent on the device behind `result`.

    Raises:
        AuthorizationError: the Evidence identifies no machine.
    """
    return SpiffeId(domain, AGENT_PREFIX + device_key(result).replace(":", "/"))


def selector_values(result: AttestationResult) -> list[str]:
    """Return the values; SPIRE puts the plugin's name, `troth`, before each.

    `tier-at-least` stands there for the tier and for each below it: SPIRE compares for equality
    only. `insecure:true` stands there if anything about the result must not count in production.
    """
    values = [f"tier:{result.tier}", f"scheme:{result.scheme}", f"policy:{result.policy_id}"]
    values += [f"tier-at-least:{tier}" for tier in AssuranceTier if tier <= result.tier]
    if result.policy_digest:
        values.append(f"policy-sha256:{result.policy_digest}")
    if result.instance_id:
        values.append(f"instance:{result.instance_id.hex()}")
    if result.implementation_id:
        values.append(f"implementation:{result.implementation_id.hex()}")
    if result.signer:
        values.append(f"signer:{result.signer}")
    if result.insecure:
        values.append("insecure:true")
    return values
