# SPDX-License-Identifier: Apache-2.0
"""What our two node attestor plugins say to each other through SPIRE.

    agent's plugin                         server's plugin
    {"version": 1}                    ->
                                      <-   {"nonce": …}
    {"proofs": [{"evidence", …}, …]}  ->

JSON; octets in base64url. One proof is Evidence over the nonce and over one public key that the
agent holds, by `derive_challenge`. A node attestor never sees the key that SPIRE is about to
certify: the agent's plugin proves every key that its agent may be about to use, and the server's
credential composer holds SPIRE to them (`attested_keys`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from troth.errors import DecodeError
from troth.formats.base64url import decode_base64url, encode_base64url
from troth.formats.limits import Limits
from troth.formats.strict_json import decode_json
from troth.identity.spiffe_id import TrustDomain

__all__ = [
    "MAX_PROOFS",
    "NONCE_SIZE",
    "KeyProof",
    "challenge_label",
    "decode_challenge",
    "decode_hello",
    "decode_proofs",
    "encode_challenge",
    "encode_hello",
    "encode_proofs",
]

MAX_PROOFS: Final = 4
"""Keys of one agent. SPIRE's has two: the one in use and the next."""

NONCE_SIZE: Final = 32
_VERSION: Final = 1
_FORMAT: Final = "SPIRE node attestation"
_LIMITS: Final = Limits(max_bytes=262_144, max_items=64, max_depth=6)
_UNBOUND: Final = b"no key"

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProof:
    """Evidence about a machine and one key on it. Nothing here is verified.

    Attributes:
        media_type: of the Evidence.
        evidence: as the Attester made it.
        key: DER SubjectPublicKeyInfo, or b"" where the Evidence covers no key.
    """

    media_type: str
    evidence: bytes
    key: bytes = b""

    @property
    def covered(self) -> bytes:
        """What stands for the key in the challenge."""
        return self.key or _UNBOUND


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Hello(_Message, frozen=True):
    version: int


class _Challenge(_Message, frozen=True):
    nonce: str


class _Proof(_Message, frozen=True):
    media_type: str
    evidence: str
    key: str = ""


class _Proofs(_Message, frozen=True):
    proofs: list[_Proof]


def challenge_label(domain: TrustDomain) -> bytes:
    """Return the label of these challenges; Evidence for one trust domain is none for another."""
    return b"troth spire node 1 " + domain.name.encode()


def encode_hello() -> bytes:
    """Return the agent's first message."""
    return msgspec.json.encode(_Hello(_VERSION))


def decode_hello(data: bytes) -> None:
    """Read the agent's first message.

    Raises:
        DecodeError: it is none, or of a version that this plugin does not speak.
    """
    version = _decode(data, _Hello).version
    if version != _VERSION:
        raise DecodeError(
            f"version {version}, not {_VERSION}",
            format=_FORMAT,
            remedy="Run the same release of Troth beside SPIRE's server and its agents.",
        )


def encode_challenge(nonce: bytes) -> bytes:
    """Return the server's challenge."""
    return msgspec.json.encode(_Challenge(encode_base64url(nonce)))


def decode_challenge(data: bytes) -> bytes:
    """Return the nonce of a challenge.

    Raises:
        DecodeError: it is none.
    """
    nonce = decode_base64url(_decode(data, _Challenge).nonce, format=_FORMAT)
    if len(nonce) != NONCE_SIZE:
        raise DecodeError(f"a nonce of {len(nonce)} octets, not {NONCE_SIZE}", format=_FORMAT)
    return nonce


def encode_proofs(proofs: Sequence[KeyProof]) -> bytes:
    """Return the agent's answer."""
    return msgspec.json.encode(
        _Proofs(
            [
                _Proof(each.media_type, encode_base64url(each.evidence), encode_base64url(each.key))
                for each in proofs
            ]
        )
    )


def decode_proofs(data: bytes) -> tuple[KeyProof, ...]:
    """Return the proofs of an answer, at least one.

    Raises:
        DecodeError: it is none; LimitExceededError: it is longer than one agent's can be.
    """
    proofs = _decode(data, _Proofs).proofs
    if not 1 <= len(proofs) <= MAX_PROOFS:
        raise DecodeError(f"{len(proofs)} proofs, not 1 to {MAX_PROOFS}", format=_FORMAT)
    return tuple(
        KeyProof(
            media_type=each.media_type,
            evidence=decode_base64url(each.evidence, format=_FORMAT),
            key=decode_base64url(each.key, format=_FORMAT) if each.key else b"",
        )
        for each in proofs
    )


def _decode(data: bytes, kind: type[T]) -> T:
    value = decode_json(data, format=_FORMAT, limits=_LIMITS)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise DecodeError(str(exc), format=_FORMAT) from exc
