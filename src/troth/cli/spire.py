# SPDX-License-Identifier: Apache-2.0
"""`troth-nodeattestor` and `troth-credentialcomposer`: the programs that SPIRE starts as plugins."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from troth.adapters.attesters import AttesterSettings, open_attester
from troth.adapters.tpm_device import DEFAULT_REGISTERS
from troth.cli.endorsement_files import read_endorsements
from troth.cli.inputs import read_collateral
from troth.cli.policy_files import evaluator_for, read_policy
from troth.clock import SystemClock, system_random
from troth.control_plane.spire.agent_attestor import AgentNodeAttestor
from troth.control_plane.spire.config import AgentAttestorConfig, ServerAttestorConfig
from troth.control_plane.spire.credential_composer import CredentialComposer
from troth.control_plane.spire.plugin_process import PluginService, require_host, serve_plugin
from troth.control_plane.spire.server_attestor import ServerNodeAttestor
from troth.errors import TrothError
from troth.evidence.attester import Attester
from troth.evidence.context import Collateral
from troth.mesh.tier import DEFAULT_LIFETIMES
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import RegoEvaluator
from troth.verifier.result import VerifierIdentity
from troth.verifier.verifier import AUTO, Verifier

__all__ = ["composer", "node_attestor"]

_USAGE = """\
usage: troth-nodeattestor server|agent

SPIRE starts this program: name it as plugin_cmd of a NodeAttestor "troth" block, with
plugin_args = ["server"] beside spire-server and ["agent"] beside spire-agent.
docs/howto/add-troth-to-spire.md shows both files.
"""


def node_attestor() -> None:
    """Run one side of the node attestor; the command line says which."""
    side = sys.argv[1:]
    if side not in (["server"], ["agent"]):
        sys.stdout.write(_USAGE)
        sys.exit(0 if side in (["-h"], ["--help"]) else 3)
    with ExitStack() as stack:

        def service() -> PluginService:
            if side == ["agent"]:
                return AgentNodeAttestor(_attester)
            return ServerNodeAttestor(
                _VerifierFiles(stack), clock=SystemClock(), random=system_random
            )

        _run("NodeAttestor", service)


def composer() -> None:
    """Run the credential composer."""
    _run("CredentialComposer", lambda: CredentialComposer(clock=SystemClock()))


def _run(kind: str, service: Callable[[], PluginService]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_HostLog())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("grpclib").setLevel(logging.WARNING)
    try:
        require_host(kind)
        asyncio.run(serve_plugin(service(), announce=_announce))
    except TrothError as exc:
        sys.stderr.write(f"troth: {exc}\n")
        sys.exit(3)


def _announce(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class _HostLog(logging.Formatter):
    """One line of JSON each, which go-plugin's host puts into its own log at the right level."""

    def format(self, record: logging.LogRecord) -> str:
        level = "warn" if record.levelno == logging.WARNING else record.levelname.lower()
        text = record.getMessage()
        if record.exc_info:
            text += f": {self.formatException(record.exc_info)}"
        return json.dumps(
            {
                "@level": level,
                "@message": text,
                "@timestamp": datetime.now(UTC).isoformat(),
            }
        )


def _attester(config: AgentAttestorConfig) -> Attester:
    return open_attester(
        config.kind,
        AttesterSettings(
            device=Path(config.device) if config.device else None,
            state=Path(config.state) if config.state else None,
            tcti=config.tcti,
            registers=tuple(config.registers) or DEFAULT_REGISTERS,
        ),
    )


class _VerifierFiles:
    """Makes the Verifier from the files that a configuration names, as they are at each call."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._evaluators: dict[bool, RegoEvaluator] = {}

    def __call__(self, config: ServerAttestorConfig, *, now: datetime) -> Verifier:
        endorsements, remarks = read_endorsements(
            config.trust_anchors, config.corims, config.corim_keys, now=now, scheme=AUTO
        )
        for remark in remarks:
            logging.getLogger(__name__).warning("%s: %s", remark.claim, remark.actual)
        return Verifier(
            identity=VerifierIdentity.of_this_build(name=config.name),
            endorsements=endorsements,
            policy=read_policy(config.policy) if config.policy else AppraisalPolicy.default(),
            evaluator=self._evaluator(custom=bool(config.policy)),
            lifetimes={tier: each.result for tier, each in DEFAULT_LIFETIMES.items()},
            collateral=read_collateral(config.collateral) if config.collateral else Collateral(),
            vendors=frozenset(config.vendors),
            grace=timedelta(seconds=config.collateral_grace_seconds),
            allow_simulator=config.allow_simulator,
            allow_test_keys=config.allow_test_keys,
        )

    def _evaluator(self, *, custom: bool) -> RegoEvaluator:
        # A policy that somebody wrote gets a process of its own; it is started once.
        if custom not in self._evaluators:
            evaluator = self._stack.enter_context(evaluator_for(custom=custom))
            self._evaluators[custom] = evaluator
        return self._evaluators[custom]
