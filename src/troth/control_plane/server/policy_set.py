# SPDX-License-Identifier: Apache-2.0
"""Which Appraisal Policy decides on this server, and which is only asked beside it.

docs/adr says what each setting means for who is admitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from troth.control_plane.server.config import VerifierSection
from troth.errors import ConfigurationError
from troth.mesh.policy_messages import PolicyName, PolicyOverview
from troth.verifier.policy import AppraisalPolicy

__all__ = ["PolicySet", "load_policies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """The policies of one server.

    Attributes:
        mode: whether the configured policy is enforced, or only audited.
        enforced: decides.
        candidate: is asked beside it and decides nothing, or None.
        enforced_source, candidate_source: their files, "" for the built-in one.
    """

    mode: Literal["audit", "enforce"]
    enforced: AppraisalPolicy
    candidate: AppraisalPolicy | None = None
    enforced_source: str = ""
    candidate_source: str = ""

    @property
    def audits(self) -> bool:
        """Whether the configured policy is not enforced, so that results have to say so."""
        return self.mode == "audit"

    def overview(self, *, recording: bool) -> PolicyOverview:
        """Return what operators are told."""
        candidate = self.candidate
        return PolicyOverview(
            mode=self.mode,
            enforced=PolicyName.of(self.enforced, source=self.enforced_source),
            candidate=None
            if candidate is None
            else PolicyName.of(candidate, source=self.candidate_source),
            recording=recording,
        )


def load_policies(section: VerifierSection) -> PolicySet:
    """Return the policies that the configuration names.

    Raises:
        ConfigurationError: one cannot be read, or would contraindicate everything; or the
            settings contradict each other.
    """
    if section.remote.kind:
        _check_remote(section)
    policy = _policy(section.policy, "verifier.policy")
    if section.mode == "enforce":
        audited = _policy(section.audit_policy, "verifier.audit_policy")
        return PolicySet(
            mode="enforce",
            enforced=policy or AppraisalPolicy.default(),
            candidate=audited,
            enforced_source=section.policy,
            candidate_source=section.audit_policy,
        )
    if policy is None:
        raise ConfigurationError(
            source="server configuration",
            key="verifier.mode",
            value="audit",
            accepted="a policy of yours to audit, in verifier.policy",
        )
    if section.audit_policy:
        raise ConfigurationError(
            source="server configuration",
            key="verifier.audit_policy",
            value=section.audit_policy,
            accepted='nothing while verifier.mode is "audit": that audits verifier.policy already',
        )
    return PolicySet(
        mode="audit",
        enforced=AppraisalPolicy.default(),
        candidate=policy,
        candidate_source=section.policy,
    )


def _check_remote(section: VerifierSection) -> None:
    """Refuse settings about our policies where another Verifier's decide: they would do nothing."""
    ours = {
        "policy": section.policy,
        "audit_policy": section.audit_policy,
        "mode": "" if section.mode == "enforce" else section.mode,
    }
    for name, value in ours.items():
        if value:
            raise ConfigurationError(
                source="server configuration",
                key=f"verifier.{name}",
                value=value,
                accepted="nothing beside verifier.remote: its own policies decide there",
            )


def _policy(name: str, key: str) -> AppraisalPolicy | None:
    if not name:
        return None
    try:
        text = Path(name).read_bytes().decode("utf-8")
    except OSError as exc:
        raise ConfigurationError(
            source="server configuration",
            key=key,
            value=name,
            accepted=f"a readable file ({exc.strerror})",
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigurationError(source=name, accepted="Rego in UTF-8") from exc
    policy = AppraisalPolicy.from_text(text, name=Path(name).name)
    if defects := policy.lint():
        raise ConfigurationError(
            source=name, accepted="; ".join(f"{each.actual} ({each.rule})" for each in defects)
        )
    return policy
