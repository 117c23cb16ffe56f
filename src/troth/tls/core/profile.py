# SPDX-License-Identifier: Apache-2.0
"""The points that draft-fossati-seat-expat leaves open, in one versioned object.

Both peers must use one profile; its name is part of the ALPN protocol, so that a difference ends
in the handshake and not in a puzzling refusal.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EXPAT_03", "Profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One set of choices.

    Attributes:
        name: appears in ALPN and in results.
        exporter_label: label of the value that Evidence is bound to. The draft says "Attestation"
            in its binder section and "Attestation Binding" in its architecture section.
        exporter_octets: length of that value.
        cmw_extension: extension type of cmw_attestation; not assigned yet, so from the private
            range of RFC 8446 section 11.
        parameters_extension: our own extension in requests, for what the requester accepts.
        encoded_extension: our own extension in authenticators, for a compressed or referenced
            payload; used only where the request allowed it.
        alpn: protocol name that announces the exchange.
    """

    name: str
    exporter_label: str
    exporter_octets: int
    cmw_extension: int
    parameters_extension: int
    encoded_extension: int
    alpn: str


# The public key is hashed as DER SubjectPublicKeyInfo; the draft does not say how.
EXPAT_03 = Profile(
    name="expat-03",
    exporter_label="Attestation",
    exporter_octets=32,
    cmw_extension=0xFF00,
    parameters_extension=0xFF01,
    encoded_extension=0xFF02,
    alpn="troth/expat-03",
)
