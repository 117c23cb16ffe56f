# SPDX-License-Identifier: Apache-2.0
"""The tables of the server's configuration about authorities, workloads and federation."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from troth.control_plane.server.authorities import Rollover
from troth.errors import ConfigurationError

__all__ = ["AuthoritiesSection", "FederationSection"]

_Positive = Annotated[int, Meta(ge=1)]
_Seconds = Annotated[int, Meta(ge=0)]
_DAY = 24 * 3600


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; unknown keys are errors."""


class AuthoritiesSection(_Section, frozen=True, kw_only=True):
    """`[authorities]`: how the keys of the trust domain follow one another, without a gap."""

    x509_seconds: Annotated[
        _Seconds,
        Meta(
            description="Make the next authority of X.509-SVIDs when the last is this old; 0 leaves "
            "it to operators (`troth bundle rotate`)."
        ),
    ] = 0
    x509_announce_seconds: Annotated[
        _Seconds,
        Meta(
            description="How long a new one is in the bundle before it issues. Agents are told at "
            "once; federated trust domains fetch when their interval is over."
        ),
    ] = _DAY
    jwt_seconds: Annotated[
        _Seconds, Meta(description="The same for keys of JWT-SVIDs; 0 leaves it to operators.")
    ] = 7 * _DAY
    jwt_announce_seconds: Annotated[
        _Seconds, Meta(description="How long a new key of JWT-SVIDs is in the bundle before.")
    ] = 3600
    jwt_svid_seconds: Annotated[
        _Positive, Meta(description="Life of a JWT-SVID whose registration entry does not say.")
    ] = 300

    def x509(self, keep: timedelta) -> Rollover:
        """Return the rollover of authorities whose SVIDs last `keep` at most."""
        return _rollover(self.x509_seconds, self.x509_announce_seconds, keep)

    def jwt(self, keep: timedelta) -> Rollover:
        """Return the rollover of keys whose tokens last `keep` at most."""
        return _rollover(self.jwt_seconds, self.jwt_announce_seconds, keep)


class FederationSection(_Section, frozen=True, kw_only=True):
    """`[federation]`: where others fetch our trust bundle, and how theirs are fetched.

    Which trust domains are believed is registered by operators (`troth bundle set`).
    """

    listen: Annotated[
        str,
        Meta(
            description="`host:port` of the bundle endpoint, TLS without client certificates; empty "
            "for none. `GET /` answers with the bundle."
        ),
    ] = ""
    profile: Annotated[
        Literal["https_spiffe", "https_web"],
        Meta(
            description="`https_spiffe` shows the server's own X.509-SVID, `https_web` the "
            "certificate below."
        ),
    ] = "https_spiffe"
    certificate: Annotated[
        str, Meta(description="PEM chain for `https_web`; read again when it changes.")
    ] = ""
    key: Annotated[str, Meta(description="PEM private key for `https_web`.")] = ""
    web_roots: Annotated[
        str,
        Meta(
            description="PEM file of the authorities that `https_web` endpoints of others are "
            "verified under; empty for the operating system's."
        ),
    ] = ""

    def check(self) -> None:
        """Check what one key alone does not show.

        Raises:
            ConfigurationError: naming the key.
        """
        wanted = bool(self.listen) and self.profile == "https_web"
        for name in ("certificate", "key"):
            if bool(getattr(self, name)) != wanted:
                raise ConfigurationError(
                    source="server configuration",
                    key=f"federation.{name}",
                    value=getattr(self, name),
                    accepted="a PEM file" if wanted else "nothing without listen and https_web",
                )


def _rollover(after: int, announce: int, keep: timedelta) -> Rollover:
    return Rollover(
        announce=timedelta(seconds=announce),
        keep=keep,
        after=timedelta(seconds=after) if after else None,
    )
