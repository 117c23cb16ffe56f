# SPDX-License-Identifier: Apache-2.0
"""What a Verifier is told: one TOML file. docs/reference/verifier.md is made from these fields."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from troth.control_plane.config_file import load_config
from troth.control_plane.loopback import is_loopback
from troth.control_plane.verification.collateral_settings import (
    AmdKdsAddress,
    CollateralFetch,
    CollateralGrace,
    IntelPcsAddress,
)
from troth.control_plane.verification.sections import (
    ChallengeResponseSection,
    CoservSection,
    ProvisioningSection,
    check_clients,
    check_upstream,
)
from troth.errors import ConfigurationError
from troth.mesh.tier import DEFAULT_LIFETIMES, Tier

__all__ = ["MAX_WORKERS", "ResultSecondsSection", "VerifierConfig", "load_verifier_config"]

MAX_WORKERS = 64
"""Processes of one Verifier."""

_Positive = Annotated[int, Meta(ge=1)]
_LISTEN = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^\[\]:\s]+):(?P<port>[0-9]{1,5})")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; unknown keys are errors."""


class ResultSecondsSection(_Section, frozen=True, kw_only=True):
    """`[result_seconds]`: how long a result lasts, by tier; absent ones have the built-in value."""

    registered: Annotated[_Positive | None, Meta(description="Results of this tier.")] = None
    identified: Annotated[_Positive | None, Meta(description="Results of this tier.")] = None
    measured: Annotated[_Positive | None, Meta(description="Results of this tier.")] = None
    confidential: Annotated[_Positive | None, Meta(description="Results of this tier.")] = None


class VerifierConfig(_Section, frozen=True, kw_only=True):
    """The whole file. Nothing here affirms anything: that takes trust anchors and values."""

    data_dir: Annotated[
        str,
        Meta(
            min_length=1,
            description="Directory for keys and database; made with mode 0700 if absent.",
        ),
    ]
    listen: Annotated[
        str, Meta(description="`host:port`; port 0 takes a free one (see `ready_file`).")
    ] = "127.0.0.1:8443"
    tls_certificate: Annotated[
        str,
        Meta(
            description="PEM file with the certificate chain, leaf first; read again when it "
            "changes. Without it plain HTTP is spoken, and only on loopback."
        ),
    ] = ""
    tls_key: Annotated[str, Meta(description="PEM file with its private key.")] = ""
    client_ca: Annotated[
        str,
        Meta(
            description="PEM file of the authorities whose client certificates are looked at; for "
            "`provisioning.clients`."
        ),
    ] = ""
    insecure_http: Annotated[
        bool,
        Meta(description="Speak plain HTTP beyond loopback. Results are signed, nonces are not."),
    ] = False
    workers: Annotated[
        int,
        Meta(ge=1, le=MAX_WORKERS, description="Processes; one for each core that it may have."),
    ] = 1
    admin_socket: Annotated[
        str, Meta(description="Unix socket for operators; empty for `admin.sock` in `data_dir`.")
    ] = ""
    database: Annotated[
        str, Meta(description="SQLAlchemy URL; empty for SQLite, `verifier.db` in `data_dir`.")
    ] = ""
    ready_file: Annotated[
        str,
        Meta(description="File that the ready line (JSON) is written to once it serves."),
    ] = ""
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
        Meta(description="Key files (PEM, JWK) of those whose signed CoRIMs are believed."),
    ] = []
    policy: Annotated[
        str, Meta(description="Rego file of the Appraisal Policy; empty for the built-in one.")
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
    allow_simulator: Annotated[
        bool, Meta(description="Accept Evidence of the platform simulator. Insecure; for trials.")
    ] = False
    allow_test_keys: Annotated[
        bool, Meta(description="Accept the published keys of reference code. Insecure; for trials.")
    ] = False
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
    public_metrics: Annotated[
        bool, Meta(description="Serve `/metrics` to anybody, not only to operators.")
    ] = False
    connections: Annotated[
        _Positive, Meta(description="Connections open at once, at one worker.")
    ] = 10_000
    appraisals_waiting: Annotated[
        _Positive, Meta(description="Appraisals queued at one worker; more are answered 503.")
    ] = 1000
    result_seconds: ResultSecondsSection = ResultSecondsSection()
    challenge_response: ChallengeResponseSection = ChallengeResponseSection()
    provisioning: ProvisioningSection = ProvisioningSection()
    coserv: CoservSection = CoservSection()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on.

        Raises:
            ConfigurationError: `listen` is not `host:port`.
        """
        match = _LISTEN.fullmatch(self.listen)
        if match is None or int(match["port"]) > 65535:
            raise self._error(
                "listen", self.listen, "host:port, such as 127.0.0.1:8443 or [::1]:8443"
            )
        return match["host"].strip("[]"), int(match["port"])

    @property
    def directory(self) -> Path:
        """The data directory."""
        return Path(self.data_dir)

    @property
    def admin_path(self) -> Path:
        """Where the operators' socket is."""
        return Path(self.admin_socket) if self.admin_socket else self.directory / "admin.sock"

    def lifetimes(self) -> dict[Tier, timedelta]:
        """Return how long a result of each tier lasts."""
        chosen = {tier: getattr(self.result_seconds, tier.value) for tier in Tier}
        return {
            tier: DEFAULT_LIFETIMES[tier].result if seconds is None else timedelta(seconds=seconds)
            for tier, seconds in chosen.items()
        }

    def check(self) -> None:
        """Refuse what is well-formed and still makes no sense, or no safe sense.

        Raises:
            ConfigurationError: naming key, value and the accepted form.
        """
        host, _ = self.address
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise self._error("tls_key", self.tls_key, "certificate and key, both or neither")
        if not self.tls_certificate and not self.insecure_http and not is_loopback(host):
            raise self._error(
                "listen",
                self.listen,
                "a loopback address, unless tls_certificate is set; insecure_http=true speaks "
                "plain HTTP anywhere",
            )
        if self.client_ca and not self.tls_certificate:
            raise self._error("client_ca", self.client_ca, "tls_certificate beside it")
        check_clients(self.provisioning, certificates=bool(self.client_ca))
        check_upstream(self.coserv)
        if self.collateral_fetch and not {"amd", "intel"} & set(self.vendors):
            raise self._error("collateral_fetch", "true", "amd or intel among vendors beside it")

    @staticmethod
    def _error(key: str, value: str, accepted: str) -> ConfigurationError:
        return ConfigurationError(
            source="verifier configuration", key=key, value=value, accepted=accepted
        )


def load_verifier_config(path: Path) -> VerifierConfig:
    """Read and check the file.

    Raises:
        ConfigurationError: naming file, key, value and the accepted form.
    """
    config = load_config(path, VerifierConfig)
    try:
        config.check()
    except ConfigurationError as exc:
        raise ConfigurationError(
            source=str(path), key=exc.key, value=exc.value, accepted=exc.accepted
        ) from exc
    return config
