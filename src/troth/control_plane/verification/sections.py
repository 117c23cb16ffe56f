# SPDX-License-Identifier: Apache-2.0
"""Tables of configuration about the standard APIs: of `troth verifier`, and of `troth server`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from troth.control_plane.loopback import is_loopback
from troth.control_plane.server.rate_limit import Rate, RateLimiter
from troth.errors import ConfigurationError
from troth.formats.ear import Dialect

__all__ = [
    "ChallengeResponseSection",
    "CoservSection",
    "EmbeddedChallengeResponseSection",
    "ProvisionerSection",
    "ProvisioningSection",
    "RatedSection",
    "check_clients",
    "check_upstream",
]

_Positive = Annotated[int, Meta(ge=1)]
_PositiveRate = Annotated[float, Meta(gt=0)]
_EachPerSecond = Annotated[
    _PositiveRate, Meta(description="Requests of one address in the long run, at one worker.")
]
_EachBurst = Annotated[
    _Positive, Meta(description="Requests of one address at once, at one worker.")
]
_TotalPerSecond = Annotated[
    _PositiveRate, Meta(description="Requests of all addresses in the long run, at one worker.")
]
_TotalBurst = Annotated[
    _Positive, Meta(description="Requests of all addresses at once, at one worker.")
]
_Digest = Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
_DIALECTS = {"veraison": Dialect.VERAISON, "ietf-02": Dialect.IETF_02, "ietf-03": Dialect.IETF_03}


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; unknown keys are errors."""


class RatedSection(_Section, frozen=True, kw_only=True):
    """A table about an interface whose callers are limited."""

    requests_per_second: _EachPerSecond
    request_burst: _EachBurst
    total_requests_per_second: _TotalPerSecond
    total_request_burst: _TotalBurst

    def limiter(self) -> RateLimiter:
        """Return the buckets that this table describes."""
        return RateLimiter(
            each=Rate(self.requests_per_second, self.request_burst),
            together=Rate(self.total_requests_per_second, self.total_request_burst),
        )


class ChallengeResponseSection(RatedSection, frozen=True, kw_only=True):
    """`[challenge_response]`: Veraison's verification API."""

    serve: Annotated[bool, Meta(description="Serve it.")] = True
    session_seconds: Annotated[
        int, Meta(ge=1, le=86_400, description="Life of a session, and so of its nonce.")
    ] = 150
    kept_results: Annotated[
        int,
        Meta(
            ge=0,
            description="Used sessions whose Evidence and result `GET` still returns; the oldest "
            "go first. That a session was used is remembered until it is over in any case.",
        ),
    ] = 10_000
    evidence_bytes: Annotated[
        _Positive, Meta(description="One piece of Evidence, its wrapper included.")
    ] = 64 * 1024
    dialect: Annotated[
        Literal["veraison", "ietf-02", "ietf-03"],
        Meta(description="How results are spelled where the caller does not say."),
    ] = "veraison"
    annotate: Annotated[
        bool,
        Meta(
            description="Put the claims themselves into results, as Veraison does. They identify "
            "the device."
        ),
    ] = True
    requests_per_second: _EachPerSecond = 100.0
    request_burst: _EachBurst = 400
    total_requests_per_second: _TotalPerSecond = 5000.0
    total_request_burst: _TotalBurst = 10_000

    @property
    def default_dialect(self) -> Dialect:
        """The dialect of results."""
        return _DIALECTS[self.dialect]

    @property
    def session_lifetime(self) -> timedelta:
        """Life of a session."""
        return timedelta(seconds=self.session_seconds)


class EmbeddedChallengeResponseSection(ChallengeResponseSection, frozen=True, kw_only=True):
    """`[challenge_response]` of a server: less, since joins have to get through beside it."""

    kept_results: Annotated[
        int, Meta(ge=0, description="Used sessions whose Evidence and result are kept.")
    ] = 1000
    requests_per_second: _EachPerSecond = 20.0
    request_burst: _EachBurst = 100
    total_requests_per_second: _TotalPerSecond = 200.0
    total_request_burst: _TotalBurst = 400


class ProvisionerSection(_Section, frozen=True, kw_only=True):
    """`[[provisioning.clients]]`: who may provision over the network, by one of two proofs."""

    name: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$",
            description="Name in the log of what was provisioned.",
        ),
    ]
    token_sha256: Annotated[
        _Digest,
        Meta(
            description="SHA-256 (hex) of the bearer token, 32 characters or more, that it sends."
        ),
    ] = ""
    certificate_sha256: Annotated[
        _Digest,
        Meta(description="SHA-256 (hex) of the DER of the client certificate that it shows."),
    ] = ""


class ProvisioningSection(RatedSection, frozen=True, kw_only=True):
    """`[provisioning]`: Veraison's provisioning API over the network. Without clients nobody may."""

    clients: Annotated[
        list[ProvisionerSection], Meta(description="Who may provision over the network.")
    ] = []
    unsigned: Annotated[
        bool,
        Meta(
            description="Take CoRIMs from them that nobody signed. Operators may always hand in "
            "unsigned ones on their socket."
        ),
    ] = False
    requests_per_second: _EachPerSecond = 5.0
    request_burst: _EachBurst = 50
    total_requests_per_second: _TotalPerSecond = 20.0
    total_request_burst: _TotalBurst = 100


class CoservSection(RatedSection, frozen=True, kw_only=True):
    """`[coserv]`: Endorsements by query, handed out and fetched."""

    serve: Annotated[
        bool,
        Meta(
            description="Answer queries. Reference Values and public keys are handed to anybody "
            "who names the class or instance."
        ),
    ] = True
    answer_seconds: Annotated[
        int, Meta(ge=1, le=31_536_000, description="How long an answer may be used at most.")
    ] = 3600
    upstream: Annotated[
        str,
        Meta(
            pattern="^(https?://[^\\s]+)?$",
            description="Another CoSERV service that is asked for what is not provisioned here; "
            "empty for none. Plain HTTP on loopback only.",
        ),
    ] = ""
    upstream_keys: Annotated[
        list[str],
        Meta(description="Key files (PEM, JWK) that its answers verify with; required with it."),
    ] = []
    upstream_ca: Annotated[
        str,
        Meta(description="PEM file of the authority of its TLS; empty for the system's."),
    ] = ""
    upstream_seconds: Annotated[
        _PositiveRate, Meta(description="How long an answer from there may take.")
    ] = 5.0
    cached_answers: Annotated[
        _Positive, Meta(description="Its answers that are kept on disk; the oldest go first.")
    ] = 10_000
    requests_per_second: _EachPerSecond = 20.0
    request_burst: _EachBurst = 100
    total_requests_per_second: _TotalPerSecond = 200.0
    total_request_burst: _TotalBurst = 400


def check_clients(section: ProvisioningSection, *, certificates: bool) -> None:
    """Refuse clients that could never be recognised, or not told apart.

    Args:
        section: the table.
        certificates: whether client certificates are asked for.

    Raises:
        ConfigurationError: naming the client.
    """
    seen: set[str] = set()
    for number, client in enumerate(section.clients):
        key = f"provisioning.clients[{number}]"
        proofs = [each for each in (client.token_sha256, client.certificate_sha256) if each]
        if len(proofs) != 1:
            accepted = "exactly one of token_sha256 and certificate_sha256"
        elif proofs[0] in seen:
            accepted = "a proof that no other client has"
        elif client.certificate_sha256 and not certificates:
            accepted = "client_ca, so that certificates are asked for"
        else:
            seen.add(proofs[0])
            continue
        raise ConfigurationError(
            source="configuration", key=key, value=client.name, accepted=accepted
        )


def check_upstream(section: CoservSection) -> None:
    """Refuse an upstream whose answers could not be verified, or travel in the clear.

    Raises:
        ConfigurationError: naming the key.
    """
    if not section.upstream:
        return
    if not section.upstream_keys:
        raise ConfigurationError(
            source="configuration",
            key="coserv.upstream_keys",
            accepted="the keys that the upstream's answers verify with",
        )
    parts = urlsplit(section.upstream)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ConfigurationError(
            source="configuration",
            key="coserv.upstream",
            value=section.upstream,
            accepted="https, or http on loopback",
        )
