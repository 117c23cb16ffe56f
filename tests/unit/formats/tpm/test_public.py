# SPDX-License-Identifier: Apache-2.0
"""Public areas: keys, attributes, names."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support.software_tpm import (
    AK_ATTRIBUTES,
    EK_ATTRIBUTES,
    SHA384,
    p256,
    public_area,
    sized,
    u16,
)
from troth.errors import DecodeError, LimitExceededError, UnsupportedError
from troth.formats.keys import load_keys, thumbprint
from troth.formats.tpm.public import (
    DECRYPT,
    RESTRICTED,
    SIGN,
    attribute_names,
    decode_public,
    looks_like_public,
)

KEYS = {
    "p256": p256(),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_public_area_gives_its_key(name: str) -> None:
    key = KEYS[name]
    area = public_area(key)
    public = decode_public(area)
    assert public.public_key() == key.public_key()
    assert public.thumbprint == thumbprint(key.public_key())
    assert public.raw == area


def test_the_name_is_a_hash_over_the_whole_area() -> None:
    area = public_area(p256())
    assert decode_public(area).name == b"\x00\x0b" + hashlib.sha256(area).digest()
    other = public_area(p256(), name_algorithm=SHA384)
    assert decode_public(other).name == b"\x00\x0c" + hashlib.sha384(other).digest()


def test_one_attribute_makes_another_name() -> None:
    unrestricted = public_area(p256(), attributes=AK_ATTRIBUTES & ~RESTRICTED)
    assert decode_public(unrestricted).name != decode_public(public_area(p256())).name


def test_attributes_are_told_by_the_names_of_tpm2_tools() -> None:
    public = decode_public(public_area(p256()))
    assert attribute_names(public.attributes) == (
        "fixedtpm",
        "fixedparent",
        "sensitivedataorigin",
        "userwithauth",
        "restricted",
        "sign",
    )
    assert public.missing(RESTRICTED | SIGN) == ()
    assert public.missing(RESTRICTED | DECRYPT) == ("decrypt",)


def test_a_storage_key_has_its_cipher() -> None:
    public = decode_public(public_area(p256("ek"), attributes=EK_ATTRIBUTES, storage=True))
    assert (public.symmetric.algorithm, public.symmetric.bits, public.symmetric.mode) == (
        6,
        128,
        0x43,
    )


def test_the_form_with_a_length_before_it_is_the_same() -> None:
    area = public_area(p256())
    assert decode_public(sized(area)) == decode_public(area)
    assert decode_public(area).sized() == sized(area)


def test_a_public_area_is_recognised_and_read_as_a_key_file() -> None:
    area = public_area(p256())
    assert looks_like_public(area)
    assert looks_like_public(sized(area))
    assert not looks_like_public(sized(area)[:-1])
    assert not looks_like_public(b"\x30\x59\x30\x13")
    for data in (area, sized(area)):
        (key,) = load_keys(data, source="ak.pub")
        assert key.material == p256().public_key()
        assert key.source == "ak.pub"


def test_a_point_off_the_curve_is_no_key() -> None:
    area = bytearray(public_area(p256()))
    area[-1] ^= 1
    with pytest.raises(DecodeError, match="not a public key"):
        decode_public(bytes(area)).public_key()


def test_a_weak_rsa_key_is_refused_when_it_is_to_be_used() -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - too weak on purpose
    with pytest.raises(UnsupportedError, match="1024 bits"):
        decode_public(public_area(weak)).public_key()


def test_a_curve_that_we_do_not_verify_with_is_refused_when_it_is_to_be_used() -> None:
    area = bytearray(public_area(p256()))
    at = bytes(area).index(bytes.fromhex("00030010"))
    area[at : at + 2] = u16(0x10)
    public = decode_public(bytes(area))
    with pytest.raises(UnsupportedError, match="curve 0x0010"):
        public.public_key()
    with pytest.raises(UnsupportedError, match="curve 0x0010"):
        _ = public.thumbprint


def test_an_object_without_a_name_has_none() -> None:
    with pytest.raises(UnsupportedError, match="a name by none"):
        _ = decode_public(public_area(p256(), name_algorithm=0x10)).name


@pytest.mark.parametrize(("kind", "name"), [(8, "KEYEDHASH"), (0x25, "SYMCIPHER")])
def test_objects_that_are_no_asymmetric_keys_are_refused_by_name(kind: int, name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"type {name}"):
        decode_public(u16(kind) + public_area(p256())[2:])


def test_reserved_attributes_are_refused() -> None:
    with pytest.raises(DecodeError, match="reserved attributes 0x80000000"):
        decode_public(public_area(p256(), attributes=AK_ATTRIBUTES | 1 << 31))


def test_a_coordinate_longer_than_the_curve_is_refused() -> None:
    area = public_area(p256())
    with pytest.raises(DecodeError, match="a coordinate of more than 32 octets"):
        decode_public(area[:-34] + sized(bytes(33)))


@pytest.mark.parametrize("name", ["p256", "rsa"])
def test_every_shorter_area_and_every_longer_one_is_refused(name: str) -> None:
    area = public_area(KEYS[name])
    for size in range(len(area)):
        with pytest.raises(DecodeError):
            decode_public(area[:size])
    with pytest.raises(DecodeError, match="follow the end"):
        decode_public(area + b"\0")


def test_an_area_longer_than_any_key_needs_is_refused_unread() -> None:
    with pytest.raises(LimitExceededError, match="MAX_PUBLIC_BYTES=2048"):
        decode_public(bytes(2049))
