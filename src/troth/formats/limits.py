# SPDX-License-Identifier: Apache-2.0
"""The named limits that every decoder of outside bytes draws on (docs/reference/limits.md).

A limit is chosen so that the worst input that it admits costs a decoder at most about 10 ms of
one core and 20 MB; the fuzz harness measures both.
"""

from __future__ import annotations

from dataclasses import dataclass

from troth.errors import ApiMisuseError

__all__ = [
    "DEFAULT_LIMITS",
    "HIGHEST_DEPTH",
    "MAX_CERTIFICATES",
    "MAX_CMW_DEPTH",
    "RIM_LIMITS",
    "Limits",
]

HIGHEST_DEPTH = 64
"""No decoder may be told to nest deeper: each level is a few frames of the interpreter's stack."""

MAX_CERTIFICATES = 10
"""Certificates that one message may carry. Ten is the depth that TLS stacks allow by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one decoding may cost.

    Attributes:
        max_bytes: octets of input.
        max_items: data items, counting each key and each value, containers included.
        max_depth: containers around an item: arrays, maps and tags (JSON: arrays and objects).
    """

    max_bytes: int
    max_items: int
    max_depth: int

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_items, self.max_depth) < 1:
            raise ApiMisuseError(f"a limit must be at least 1: {self}")
        if self.max_depth > HIGHEST_DEPTH:
            raise ApiMisuseError(f"max_depth={self.max_depth} is above {HIGHEST_DEPTH}")


DEFAULT_LIMITS = Limits(max_bytes=65_536, max_items=16_384, max_depth=16)
"""Evidence, Attestation Results, keys: the largest seen is a Nitro document of 5 KB."""

RIM_LIMITS = Limits(max_bytes=1_048_576, max_items=20_000, max_depth=24)
"""Reference integrity manifests, which an Endorser sends and which may list a whole product."""

MAX_CMW_DEPTH = 4
"""Collections within collections in one Conceptual Message Wrapper."""
