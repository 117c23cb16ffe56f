# SPDX-License-Identifier: Apache-2.0
import hashlib
import os
import zlib

import pytest

from support.attested_pair import Setting, pair
from support.attested_world import World
from troth.errors import BindingError, DecodeError, LimitExceededError, UnavailableError
from troth.evidence.simulator import CcaOptions
from troth.formats import cbor
from troth.formats.exported_authenticator import Role
from troth.tls.core.binding import Proof, Request
from troth.tls.core.messages import MAX_PROOF_OCTETS, Model, RequestParameters
from troth.tls.payload import (
    MAX_ADDRESS_OCTETS,
    NothingToShowError,
    decode_payload,
    encode_payload,
)


class Shelf:
    """An uploader and a resolver in one: what was put there, under its digest."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def upload(self, payload: bytes, digest: bytes) -> str:
        address = f"https://evidence.example/{digest.hex()}"
        self.kept[address] = payload
        return address

    async def fetch(self, address: str, *, max_octets: int) -> bytes:
        if address not in self.kept:
            raise UnavailableError("nothing there")
        return self.kept[address][: max_octets + 1]


def wanted(**changes: object) -> RequestParameters:
    given: dict[str, object] = {"models": (Model.BACKGROUND_CHECK,), "max_proof_octets": 1000}
    return RequestParameters(**{**given, **changes})  # type: ignore[arg-type]


def proof(payload: bytes, encoding: str = "") -> Proof:
    parameters = wanted(encodings=("deflate",), takes_references=True)
    request = Request(requester=Role.CLIENT, context=bytes(32), parameters=parameters, raw=b"")
    return Proof(chain=(), payload=payload, encoding=encoding, request=request)


NOISE = os.urandom(5000)
DULL = b"measured " * 1000


@pytest.mark.parametrize(
    ("payload", "offers", "encoding"),
    [
        (NOISE[:1000], {}, ""),
        (DULL, {"encodings": ("deflate",)}, "deflate"),
        (NOISE, {"encodings": ("deflate",), "takes_references": True}, "reference"),
        (NOISE, {"max_proof_octets": 5000}, ""),
    ],
)
async def test_a_payload_goes_in_the_first_way_that_fits_and_comes_back_whole(
    payload: bytes, offers: dict[str, object], encoding: str
) -> None:
    shelf = Shelf()
    sent, name = await encode_payload(payload, wanted(**offers), max_octets=1 << 17, uploader=shelf)
    assert name == encoding
    assert bool(shelf.kept) is (encoding == "reference")
    assert await decode_payload(proof(sent, name), shelf) == payload


@pytest.mark.parametrize(
    ("payload", "offers", "uploads"),
    [
        (NOISE[:1001], {}, True),
        (DULL, {}, True),
        (NOISE, {"encodings": ("deflate",)}, True),
        (NOISE, {"takes_references": True}, False),
        (bytes(MAX_PROOF_OCTETS + 1), {"encodings": ("deflate",), "takes_references": True}, True),
    ],
)
async def test_what_the_peer_does_not_take_in_any_way_is_not_sent(
    payload: bytes, offers: dict[str, object], *, uploads: bool
) -> None:
    with pytest.raises(NothingToShowError, match="octets, the peer takes 1000"):
        await encode_payload(
            payload, wanted(**offers), max_octets=1 << 17, uploader=Shelf() if uploads else None
        )


async def test_the_proofs_own_format_is_a_limit_too() -> None:
    assert await encode_payload(b"x" * 10, wanted(), max_octets=10) == (b"x" * 10, "")
    with pytest.raises(NothingToShowError):
        await encode_payload(b"x" * 11, wanted(), max_octets=10)


BOMB = zlib.compress(bytes(MAX_PROOF_OCTETS + 1))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (BOMB, LimitExceededError),
        (b"not deflate", DecodeError),
        (zlib.compress(DULL)[:-5], DecodeError),
        (zlib.compress(DULL) + b"x", DecodeError),
    ],
)
async def test_a_compressed_payload_that_is_not_whole_or_too_large_is_refused(
    data: bytes, error: type[Exception]
) -> None:
    assert await decode_payload(proof(zlib.compress(DULL), "deflate"), None) == DULL
    whole = zlib.compress(bytes(MAX_PROOF_OCTETS))
    assert len(await decode_payload(proof(whole, "deflate"), None)) == MAX_PROOF_OCTETS
    with pytest.raises(error):
        await decode_payload(proof(data, "deflate"), None)


def reference(**changes: object) -> bytes:
    given = {"1": hashlib.sha256(NOISE).digest(), "2": "https://evidence.example/a"}
    entries = {**given, **changes}
    return cbor.encode({int(key): value for key, value in entries.items() if value is not None})


@pytest.mark.parametrize(
    "wrong",
    [
        cbor.encode([1, 2]),
        reference(**{"1": None}),
        reference(**{"1": "digest"}),
        reference(**{"2": None}),
        reference(**{"2": b"address"}),
        reference(**{"2": "https://x/" + "a" * MAX_ADDRESS_OCTETS}),
    ],
)
async def test_a_reference_of_the_wrong_shape_is_refused(wrong: bytes) -> None:
    shelf = Shelf()
    shelf.kept["https://evidence.example/a"] = NOISE
    assert await decode_payload(proof(reference(), "reference"), shelf) == NOISE
    with pytest.raises(DecodeError):
        await decode_payload(proof(wrong, "reference"), shelf)
    with pytest.raises(DecodeError):
        await decode_payload(proof(reference(), "reference"), None)


async def test_what_a_reference_leads_to_has_to_be_what_was_signed() -> None:
    shelf = Shelf()
    shelf.kept["https://evidence.example/a"] = NOISE[::-1]
    with pytest.raises(BindingError, match="another digest"):
        await decode_payload(proof(reference(), "reference"), shelf)
    shelf.kept["https://evidence.example/a"] = bytes(MAX_PROOF_OCTETS + 1)
    with pytest.raises(LimitExceededError):
        await decode_payload(proof(reference(), "reference"), shelf)
    shelf.kept.clear()
    with pytest.raises(UnavailableError):
        await decode_payload(proof(reference(), "reference"), shelf)


async def test_a_proof_without_payload_is_refused() -> None:
    with pytest.raises(DecodeError, match="no CMW"):
        await decode_payload(proof(b""), None)


async def test_evidence_above_the_announced_size_reaches_the_verifier_by_reference() -> None:
    world = World()
    cloud, edge = world.join("cloud", world.platform(CcaOptions())), world.join("edge")
    shelf = Shelf()
    client = Setting(
        edge, world.policy(model="background_check", max_payload_octets=900), resolver=shelf
    )
    server = Setting(cloud, world.policy(), uploader=shelf)
    async with pair(world, client, server) as (one, other):
        await one.opened
        await other.opened
        assert one.driver.peer.scheme == "cca"
    assert len(shelf.kept) == 1
    small = Setting(edge, world.policy(model="background_check", max_payload_octets=100))
    async with pair(world, small, server) as (one, other):
        assert (await other.ended).verdict.name == "DECLINED"
