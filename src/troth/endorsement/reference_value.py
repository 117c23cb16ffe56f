# SPDX-License-Identifier: Apache-2.0
"""Reference Values: what the supply chain says that good Attesters measure.

Source: RFC 9334 section 8.3; draft-ietf-rats-corim (0b855af) "Reference Values Triple".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from troth.formats.corim import tags

__all__ = ["Environment", "ReferenceValue", "ReferenceValueSource"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The Target Environment that a value is about. Absent parts match anything.

    Attributes:
        class_id: octets of the class identifier (implementation id, RIM, ...).
        instance_id: octets of the instance identifier (UEID, chip id).
        vendor, model: names as the Endorser writes them; never compared.
        class_tag, instance_tag: CBOR tags that the identifiers were written under.
    """

    class_id: bytes = b""
    instance_id: bytes = b""
    vendor: str = ""
    model: str = ""
    class_tag: int = tags.BYTES
    instance_tag: int = tags.UEID


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceValue:
    """One acceptable measurement of one element of an environment.

    Whatever is set is a condition, and all conditions must hold (`matching.compare`).

    Attributes:
        id: stable identifier: "<CoRIM id>/<CoMID tag id>#<n>"; what `withdraw` takes.
        scheme: the scheme's one word.
        environment: what it is about.
        key: measurement key, such as "psa.software-component" or "cca.rim", else "".
        state: which reference triple it comes from: values of one state belong together, values
            of different states are alternatives.
        digests: algorithm ("sha-256", "sha-384", "sha-512") to digest.
        name, version: component name and version where given, else "".
        signer_ids: accepted signers (authority key digests), any of them; empty means any.
        raw_value, raw_mask: raw measurement and its mask, else None.
        svn, min_svn: exact or minimal security version number, else None.
        registers: register (PCR number, or name) to digests by algorithm.
        flags: names from the CoRIM registry ("is-debug") to what they must be.
        int_range: lowest and highest integer accepted, None for no bound; else None.
        uncomparable: members that Troth has no comparison for; one is enough that the value
            never matches.
        source: the file or service it came from, for messages.
        not_before, not_after: validity, else None.
    """

    id: str
    scheme: str
    environment: Environment
    key: str = ""
    state: str = ""
    digests: Mapping[str, bytes] = field(default_factory=dict)
    name: str = ""
    version: str = ""
    signer_ids: Sequence[bytes] = ()
    raw_value: bytes | None = None
    raw_mask: bytes | None = None
    svn: int | None = None
    min_svn: int | None = None
    registers: Mapping[int | str, Mapping[str, bytes]] = field(default_factory=dict)
    flags: Mapping[str, bool] = field(default_factory=dict)
    int_range: tuple[int | None, int | None] | None = None
    uncomparable: Sequence[str] = ()
    source: str = ""
    not_before: datetime | None = None
    not_after: datetime | None = None


class ReferenceValueSource(Protocol):
    """Where an appraiser finds Reference Values. An empty answer never means "accept"."""

    def find(
        self, scheme: str, *, class_id: bytes, instance_id: bytes = b""
    ) -> Sequence[ReferenceValue]:
        """Return the values in force for this environment."""
        ...

    @property
    def epoch(self) -> str:
        """Identify the set in force; changes whenever the set does."""
        ...
