# SPDX-License-Identifier: Apache-2.0
"""What a server is told: one TOML file. docs/reference/server.md is made from these fields."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from troth.control_plane.config_file import load_config
from troth.control_plane.server.onboarding_config import OnboardingSection
from troth.control_plane.server.remote_config import RemoteSection
from troth.control_plane.server.trust_config import AuthoritiesSection, FederationSection
from troth.control_plane.verification.collateral_settings import (
    AmdKdsAddress,
    CollateralFetch,
    CollateralGrace,
    IntelPcsAddress,
)
from troth.control_plane.verification.sections import (
    CoservSection,
    EmbeddedChallengeResponseSection,
    ProvisioningSection,
    check_clients,
    check_upstream,
)
from troth.errors import ConfigurationError, DecodeError
from troth.mesh.registration_entry import RegistrationEntry, node_selector
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier, TierLifetimes

__all__ = [
    "EntrySection",
    "LifetimeSection",
    "LifetimesSection",
    "LimitSection",
    "ServerConfig",
    "VerifierSection",
    "load_server_config",
    "parse_listen",
]

_Positive = Annotated[int, Meta(ge=1)]
_PositiveRate = Annotated[float, Meta(gt=0)]
_TierName = Literal["registered", "identified", "measured", "confidential"]
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\[\]:\s]+):(?P<port>[0-9]{1,5})")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; unknown keys are errors."""


class VerifierSection(_Section, frozen=True, kw_only=True):
    """`[verifier]`: what the embedded Verifier believes and by which rules."""

    name: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=128,
            description="Name that its results carry and that peers' policies name.",
        ),
    ] = "troth"
    corims: Annotated[
        list[str],
        Meta(description="CoRIM files to provision at the start; trust anchors are in them too."),
    ] = []
    corim_keys: Annotated[
        list[str],
        Meta(
            description="Key files (PEM, JWK) of those whose signed CoRIMs are believed. Without "
            "any, only unsigned CoRIMs from these files and from operators are taken."
        ),
    ] = []
    policy: Annotated[
        str, Meta(description="Rego file of the Appraisal Policy; empty for the built-in one.")
    ] = ""
    mode: Annotated[
        Literal["enforce", "audit"],
        Meta(
            description="`audit`: the built-in policy decides, `policy` is only asked beside it, and "
            "nodes that it would refuse are labelled insecure."
        ),
    ] = "enforce"
    audit_policy: Annotated[
        str,
        Meta(
            description="Rego file of a policy that is asked beside the enforced one and decides "
            "nothing; see `troth policy diff`."
        ),
    ] = ""
    vendors: Annotated[
        list[str],
        Meta(description="Vendors of hardware whose own published roots are believed: `amd`, …"),
    ] = []
    collateral: Annotated[
        str,
        Meta(description="Directory with documents of vendors: certificates, revocation lists."),
    ] = ""
    collateral_grace_seconds: CollateralGrace = 0
    collateral_fetch: CollateralFetch = False
    amd_kds: AmdKdsAddress = ""
    intel_pcs: IntelPcsAddress = ""
    remote: RemoteSection = RemoteSection()

    def check(self) -> None:
        """Refuse settings that do nothing.

        Raises:
            ConfigurationError: naming key and accepted form.
        """
        self.remote.check()
        if self.collateral_fetch and not {"amd", "intel"} & set(self.vendors):
            raise ConfigurationError(
                source="server configuration",
                key="verifier.collateral_fetch",
                value="true",
                accepted="amd or intel among verifier.vendors beside it",
            )


class LifetimeSection(_Section, frozen=True, kw_only=True):
    """`[lifetimes.TIER]`: how long things last for nodes of a tier. Absent keys: built-in values."""

    result_seconds: Annotated[
        _Positive | None, Meta(description="Attestation Result, from its issue.")
    ] = None
    svid_seconds: Annotated[
        _Positive | None, Meta(description="X.509-SVID at most; never longer than its result.")
    ] = None
    connection_seconds: Annotated[
        _Positive | None, Meta(description="Connection at most, from the attestation on.")
    ] = None


class LifetimesSection(_Section, frozen=True, kw_only=True):
    """`[lifetimes]`: by tier."""

    registered: LifetimeSection = LifetimeSection()
    identified: LifetimeSection = LifetimeSection()
    measured: LifetimeSection = LifetimeSection()
    confidential: LifetimeSection = LifetimeSection()


class LimitSection(_Section, frozen=True, kw_only=True):
    """`[limits]`: what strangers can cost the server."""

    body_bytes: Annotated[_Positive, Meta(description="Body of a request over HTTPS.")] = 256 * 1024
    evidence_bytes: Annotated[_Positive, Meta(description="One piece of Evidence.")] = 64 * 1024
    open_sessions: Annotated[_Positive, Meta(description="Join sessions open at once.")] = 10_000
    session_seconds: Annotated[_Positive, Meta(description="Life of a join session.")] = 150
    requests_per_second: Annotated[
        _PositiveRate, Meta(description="Join requests of one address in the long run.")
    ] = 10.0
    request_burst: Annotated[
        _Positive, Meta(description="Join requests of one address at once.")
    ] = 40
    total_requests_per_second: Annotated[
        _PositiveRate, Meta(description="Join requests of all addresses in the long run.")
    ] = 500.0
    total_request_burst: Annotated[
        _Positive, Meta(description="Join requests of all addresses at once.")
    ] = 1000
    connections: Annotated[_Positive, Meta(description="Connections open at once.")] = 10_000
    appraisals_waiting: Annotated[
        _Positive, Meta(description="Appraisals and registry calls queued, each.")
    ] = 1000
    kept_events: Annotated[
        _Positive, Meta(description="Events kept for agents that come back.")
    ] = 100_000
    kept_refusals: Annotated[
        _Positive, Meta(description="Refused joins kept for `troth explain`.")
    ] = 10_000
    kept_appraisals: Annotated[
        int,
        Meta(
            ge=0,
            description="Appraisals kept for `troth policy replay`, equal ones of a device counted "
            "as one; 0 keeps none. They hold claims, not Evidence.",
        ),
    ] = 10_000
    appraisal_days: Annotated[
        _Positive, Meta(description="Days that an appraisal is kept after it was last seen.")
    ] = 7


class EntrySection(_Section, frozen=True, kw_only=True):
    """`[[entries]]`: registration entries that exist from the start; others come by the admin API."""

    spiffe_id: Annotated[
        str, Meta(description="SPIFFE ID, in the trust domain, of the devices that are selected.")
    ]
    selectors: Annotated[
        list[str],
        Meta(
            description="All have to hold: `instance:HEX`, `implementation:HEX`, `signer:HEX`, "
            "`device:ID`, `scheme:NAME`, `claim:LABEL/NAME=VALUE`; at least one of the first four."
        ),
    ]
    id: Annotated[
        str,
        Meta(
            pattern=r"\A([a-z0-9][a-z0-9._-]{0,62})?\Z",
            description="Name of the entry; empty for one made from SPIFFE ID and selectors.",
        ),
    ] = ""
    min_tier: Annotated[_TierName, Meta(description="Weakest tier that is admitted.")] = "measured"
    hint: Annotated[str, Meta(max_length=256, description="Your own words.")] = ""


class ServerConfig(_Section, frozen=True, kw_only=True):
    """The whole file. Nothing here admits anybody: that takes trust anchors and entries."""

    trust_domain: Annotated[
        str, Meta(description="Name of the trust domain, such as `example.org`.")
    ]
    data_dir: Annotated[
        str,
        Meta(
            min_length=1,
            description="Directory for keys and database; made with mode 0700 if absent.",
        ),
    ]
    listen: Annotated[
        str,
        Meta(description="`host:port` for HTTPS; port 0 takes a free one (see `ready_file`)."),
    ] = "127.0.0.1:8444"
    admin_socket: Annotated[
        str,
        Meta(description="Unix socket for operators; empty for `admin.sock` in `data_dir`."),
    ] = ""
    database: Annotated[
        str,
        Meta(description="SQLAlchemy URL; empty for SQLite, `registry.db` in `data_dir`."),
    ] = ""
    ready_file: Annotated[
        str,
        Meta(description="File that the ready line (JSON) is written to once the server serves."),
    ] = ""
    server_svid_seconds: Annotated[
        _Positive, Meta(description="Life of the server's own X.509-SVID.")
    ] = 24 * 3600
    result_key_seconds: Annotated[
        int,
        Meta(
            ge=0,
            description="Make the next key for results when the last one is this old; 0 leaves it "
            "to operators.",
        ),
    ] = 0
    result_key_announce_seconds: Annotated[
        int,
        Meta(
            ge=0,
            description="How long a new key for results is published before it signs; longer than "
            "it takes whoever verifies results to fetch the keys again.",
        ),
    ] = 24 * 3600
    degraded_grace_seconds: Annotated[
        int,
        Meta(ge=0, description="How long a degraded node keeps its connections."),
    ] = 0
    heartbeat_seconds: Annotated[
        _PositiveRate, Meta(description="Longest silence of the feed.")
    ] = 5.0
    lease_seconds: Annotated[
        _PositiveRate,
        Meta(description="An agent not heard of for this long no longer counts as told."),
    ] = 30.0
    disclose_findings: Annotated[
        bool,
        Meta(
            description="Tell a refused node what the Verifier found, if its Evidence was "
            "authentic. Others are told a class and the refusal's id in any case."
        ),
    ] = True
    public_metrics: Annotated[
        bool, Meta(description="Serve `/metrics` over HTTPS too, not only to operators.")
    ] = False
    allow_simulator: Annotated[
        bool, Meta(description="Accept Evidence of the platform simulator. Insecure; for trials.")
    ] = False
    allow_test_keys: Annotated[
        bool, Meta(description="Accept the published keys of reference code. Insecure; for trials.")
    ] = False
    verifier: VerifierSection = VerifierSection()
    lifetimes: LifetimesSection = LifetimesSection()
    limits: LimitSection = LimitSection()
    authorities: AuthoritiesSection = AuthoritiesSection()
    federation: FederationSection = FederationSection()
    challenge_response: EmbeddedChallengeResponseSection = EmbeddedChallengeResponseSection()
    provisioning: ProvisioningSection = ProvisioningSection()
    coserv: CoservSection = CoservSection()
    onboarding: OnboardingSection = OnboardingSection()
    entries: list[EntrySection] = []

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on.

        Raises:
            ConfigurationError: `listen` is not `host:port`.
        """
        return parse_listen(self.listen, key="listen")

    @property
    def directory(self) -> Path:
        """The data directory."""
        return Path(self.data_dir)

    @property
    def admin_path(self) -> Path:
        """Where the operators' socket is."""
        return Path(self.admin_socket) if self.admin_socket else self.directory / "admin.sock"

    def tier_lifetimes(self) -> dict[Tier, TierLifetimes]:
        """Return the lifetimes of every tier."""
        return {tier: self._lifetimes(tier) for tier in Tier}

    def _lifetimes(self, tier: Tier) -> TierLifetimes:
        section: LifetimeSection = getattr(self.lifetimes, tier.value)
        default = DEFAULT_LIFETIMES[tier]

        def choose(seconds: int | None, otherwise: timedelta) -> timedelta:
            return otherwise if seconds is None else timedelta(seconds=seconds)

        return TierLifetimes(
            result=choose(section.result_seconds, default.result),
            svid=choose(section.svid_seconds, default.svid),
            connection=choose(section.connection_seconds, default.connection),
            feed_loss=default.feed_loss,  # agents keep that clock
        )

    def registration_entries(self) -> tuple[RegistrationEntry, ...]:
        """Return the entries of the file.

        Raises:
            ConfigurationError: naming the entry's number and what is wrong with it.
        """
        return tuple(self._entry(number, section) for number, section in enumerate(self.entries))

    def _entry(self, number: int, section: EntrySection) -> RegistrationEntry:
        if not section.spiffe_id.startswith(f"spiffe://{self.trust_domain}/"):
            raise ConfigurationError(
                source="server configuration",
                key=f"entries[{number}].spiffe_id",
                value=section.spiffe_id,
                accepted=f"a SPIFFE ID that starts with spiffe://{self.trust_domain}/",
            )
        try:
            selectors = tuple(node_selector(text) for text in section.selectors)
            return RegistrationEntry(
                id=section.id or _entry_id(section),
                spiffe_id=section.spiffe_id,
                selectors=selectors,
                min_tier=Tier(section.min_tier),
                hint=section.hint,
            )
        except DecodeError as exc:
            raise ConfigurationError(
                source="server configuration",
                key=f"entries[{number}].selectors",
                value=", ".join(section.selectors),
                accepted=f"selectors ({exc})",
            ) from exc


def _entry_id(section: EntrySection) -> str:
    # The same entry keeps its name over restarts, whatever the order of its selectors.
    text = "\n".join([section.spiffe_id, *sorted(section.selectors)])
    return f"file-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def parse_listen(text: str, *, key: str) -> tuple[str, int]:
    """Return host and port of an address to listen on.

    Raises:
        ConfigurationError: not `host:port`.
    """
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ConfigurationError(
            source="server configuration",
            key=key,
            value=text,
            accepted="host:port, such as 127.0.0.1:8444 or [::1]:8444",
        )
    return match["host"].strip("[]"), int(match["port"])


def load_server_config(path: Path) -> ServerConfig:
    """Read and check the file.

    Raises:
        ConfigurationError: naming file, key, value and the accepted form.
    """
    config = load_config(path, ServerConfig)
    try:
        config.address  # noqa: B018 - the property checks
        config.registration_entries()
        config.federation.check()
        config.verifier.check()
        # Members' SVIDs are the only client certificates that the listener looks at.
        check_clients(config.provisioning, certificates=True)
        check_upstream(config.coserv)
    except ConfigurationError as exc:
        raise ConfigurationError(
            source=str(path), key=exc.key, value=exc.value, accepted=exc.accepted
        ) from exc
    return config
