# SPDX-License-Identifier: Apache-2.0
"""What a server is told about another Verifier in place of its own."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from troth.control_plane.loopback import is_loopback
from troth.errors import ConfigurationError

__all__ = ["RemoteSection"]

_PositiveRate = Annotated[float, Meta(gt=0)]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file; unknown keys are errors."""


class RemoteSection(_Section, frozen=True, kw_only=True):
    """`[verifier.remote]`: another Verifier in place of the embedded one. Empty `kind`: none."""

    kind: Annotated[
        Literal["", "veraison", "trustee"],
        Meta(
            description="Whose interface it speaks: Veraison's challenge-response, or the RESTful "
            "one of Trustee's Attestation Service. Its policies and Reference Values then decide."
        ),
    ] = ""
    url: Annotated[
        str,
        Meta(
            pattern="^(https?://[^\\s]+)?$",
            description="Where it is; plain HTTP on loopback only.",
        ),
    ] = ""
    ca: Annotated[
        str, Meta(description="PEM file of the authority of its TLS; empty for the system's.")
    ] = ""
    result_keys: Annotated[
        list[str], Meta(description="Key files (PEM, JWK) that its results verify with.")
    ] = []
    discover_result_keys: Annotated[
        bool,
        Meta(description="Ask it for its keys, and again when an unknown one signs; needs `ca`."),
    ] = False
    policies: Annotated[
        list[str], Meta(description="Trustee: ids of the policies to apply; empty for its default.")
    ] = []
    timeout_seconds: Annotated[
        _PositiveRate, Meta(description="How long one of its answers may take.")
    ] = 5.0
    result_seconds: Annotated[
        int,
        Meta(
            ge=0,
            description="How long a result lasts whose EAR has no end; 0: it yields no SVID.",
        ),
    ] = 0

    def check(self) -> None:
        """Refuse settings by which nothing could be verified, or anything could be forged.

        Raises:
            ConfigurationError: naming key and accepted form.
        """
        if not self.kind:
            if self.url:
                raise self._error("kind", "", "veraison or trustee, beside a url")
            return
        parts = urlsplit(self.url)
        if not self.url:
            raise self._error("url", "", "the address of the other Verifier")
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise self._error("url", self.url, "https, or http on loopback")
        if self.discover_result_keys and not (self.ca and parts.scheme == "https"):
            raise self._error(
                "discover_result_keys", "true", "https with a pinned authority (ca), or false"
            )
        if not self.result_keys and not self.discover_result_keys:
            raise self._error("result_keys", "", "the keys that its results verify with")
        if self.policies and self.kind != "trustee":
            raise self._error("policies", ", ".join(self.policies), "nothing, but for trustee")

    @staticmethod
    def _error(key: str, value: str, accepted: str) -> ConfigurationError:
        return ConfigurationError(
            source="server configuration",
            key=f"verifier.remote.{key}",
            value=value,
            accepted=accepted,
        )
