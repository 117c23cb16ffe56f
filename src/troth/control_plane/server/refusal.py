# SPDX-License-Identifier: Apache-2.0
"""A refused join as an exception, with what its node may be told."""

from __future__ import annotations

from troth.errors import TrothError
from troth.mesh.registry import JoinRefusal

__all__ = ["JoinRefusedError"]


class JoinRefusedError(TrothError):
    """The join was refused and the refusal is on record.

    Attributes:
        cause: why.
        refusal: what was recorded.
        disclosed: whether the node may be told the findings: its Evidence was authentic, so they
            go to the machine that they are about and to nobody else.
    """

    def __init__(self, cause: TrothError, refusal: JoinRefusal, *, disclosed: bool) -> None:
        super().__init__(str(cause), remedy=cause.remedy)
        self.cause, self.refusal, self.disclosed = cause, refusal, disclosed
