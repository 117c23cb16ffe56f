# SPDX-License-Identifier: Apache-2.0
"""The TOML files of the plugins for SPIRE. docs/reference/spire.md lists the keys."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["AgentAttestorConfig", "ComposerConfig", "ServerAttestorConfig"]

_Path = Annotated[str, Meta(min_length=1)]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole file; unknown keys are errors."""


class ServerAttestorConfig(_File, frozen=True, kw_only=True):
    """The node attestor beside SPIRE's server: a Verifier. Nothing named means nobody attested.

    Attributes:
        state_dir: directory for the key of results and for what was proved; the credential
            composer names it too.
        name: of this Verifier, in its results.
        trust_anchors: files with attestation keys or root certificates.
        corims: CoRIM files: Reference Values, and trust anchors.
        corim_keys: keys that signed ones must verify under.
        policy: Rego file of the Appraisal Policy; empty for the built-in one.
        vendors: vendors of hardware whose published roots are believed.
        collateral: directory with documents of vendors.
        collateral_grace_seconds: how long after its next update such a document serves.
        min_tier: weakest tier that makes a SPIRE agent.
        unbound_keys: let an agent attest without proving its key. Then whoever can have a genuine
            machine answer a challenge gets that machine's agent SVID.
        allow_simulator, allow_test_keys: insecure; for trials.
    """

    state_dir: _Path
    name: Annotated[str, Meta(min_length=1, max_length=128)] = "troth"
    trust_anchors: list[_Path] = []
    corims: list[_Path] = []
    corim_keys: list[_Path] = []
    policy: str = ""
    vendors: list[str] = []
    collateral: str = ""
    collateral_grace_seconds: Annotated[int, Meta(ge=0)] = 0
    min_tier: Literal["identified", "measured", "confidential"] = "measured"
    unbound_keys: bool = False
    allow_simulator: bool = False
    allow_test_keys: bool = False


class AgentAttestorConfig(_File, frozen=True, kw_only=True):
    """The node attestor beside SPIRE's agent: an Attester.

    Attributes:
        agent_keys: `keys.json` of the agent's key manager "disk", whose keys the Evidence is to
            cover. Empty where the agent keeps its keys elsewhere: see `unbound_keys`.
        kind: of Attester; "auto" takes what hardware provides, never the simulator.
        device: the simulator's device file. Insecure.
        state: file that keeps a TPM's attestation key.
        tcti: how a TPM is reached.
        registers: what a TPM quotes; empty for the firmware's and boot loader's.
    """

    agent_keys: str = ""
    kind: Literal["auto", "simulator", "tsm", "nsm", "tpm"] = "auto"
    device: str = ""
    state: str = ""
    tcti: str = "device:/dev/tpmrm0"
    registers: list[Annotated[int, Meta(ge=0, le=23)]] = []


class ComposerConfig(_File, frozen=True, kw_only=True):
    """The credential composer beside SPIRE's server.

    Attributes:
        state_dir: that of the node attestor on the same server.
    """

    state_dir: _Path
