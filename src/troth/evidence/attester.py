# SPDX-License-Identifier: Apache-2.0
"""The Attester port: what makes Evidence on a node.

Implementations: `troth.evidence.simulator` (for tests and demonstrations) and the drivers of real
hardware in `troth.adapters`. The node agent sees only this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Attester", "AttesterDescription"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttesterDescription:
    """What an Attester says of itself before it is asked for Evidence; for people.

    Nothing here is proved. It lets `troth attest --explain` show what the Evidence will hold.

    Attributes:
        scheme: the scheme's one word.
        media_type: under which its Evidence travels.
        source: the device or file that it draws on.
        challenge_size: octets of challenge that it signs.
        identity: what a registration entry names it by, such as its instance id, in hex.
        details: further lines, name to text, in the order to show.
        insecure: reasons why its Evidence must not count in production.
    """

    scheme: str
    media_type: str
    source: str
    challenge_size: int
    identity: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    insecure: Sequence[str] = ()


class Attester(Protocol):
    """Makes Evidence about the machine that it runs on.

    A call may take as long as the hardware does (a TPM quote takes about 60 ms): a caller with an
    event loop runs it in a thread.
    """

    @property
    def scheme(self) -> str:
        """The scheme's one word."""

    @property
    def media_type(self) -> str:
        """Under which the Evidence travels."""

    @property
    def challenge_size(self) -> int:
        """Octets that `attest()` takes."""

    def attest(self, challenge: bytes) -> bytes:
        """Return Evidence that carries `challenge`.

        Raises:
            ApiMisuseError: the challenge has not the size that this Attester signs.
            UnavailableError: the device does not answer.
        """
        ...

    def describe(self) -> AttesterDescription:
        """Say what this Attester is, without making Evidence."""
        ...
