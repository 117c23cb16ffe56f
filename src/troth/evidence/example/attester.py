# SPDX-License-Identifier: Apache-2.0
"""Step 3 of a scheme: its Attester. Real hardware's lives in `troth.adapters`, behind this port."""

from __future__ import annotations

from troth.errors import ApiMisuseError
from troth.evidence.attester import AttesterDescription
from troth.evidence.example.evidence import CHALLENGE_SIZE, MEDIA_TYPE
from troth.formats import cbor
from troth.formats.cose import sign1
from troth.formats.signer import Signer

__all__ = ["ExampleAttester"]


class ExampleAttester:
    """Makes Evidence of the made-up scheme with a key in this process."""

    scheme = "example"
    media_type = MEDIA_TYPE
    challenge_size = CHALLENGE_SIZE

    def __init__(self, signer: Signer, *, serial: str, firmware: bytes) -> None:
        self._signer, self._serial, self._firmware = signer, serial, firmware

    def attest(self, challenge: bytes) -> bytes:
        """Return Evidence with this challenge.

        Raises:
            ApiMisuseError: it has not 32 octets.
        """
        if len(challenge) != CHALLENGE_SIZE:
            raise ApiMisuseError(f"a challenge has {CHALLENGE_SIZE} octets, not {len(challenge)}")
        payload = cbor.encode(
            {"challenge": challenge, "serial": self._serial, "firmware": self._firmware}
        )
        return cbor.encode(["example", sign1(payload, self._signer)])

    def describe(self) -> AttesterDescription:
        """Say what this Attester is."""
        return AttesterDescription(
            scheme=self.scheme,
            media_type=self.media_type,
            source="the example, in memory",
            challenge_size=self.challenge_size,
            identity=self._serial.encode().hex(),
            insecure=("example scheme",),
        )
