# SPDX-License-Identifier: Apache-2.0
"""Credentials that one TPM opens."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from support.software_tpm import EK_ATTRIBUTES, SoftwareTpm, name_of, p256, public_area
from support.vectors import vectors
from troth.errors import ApiMisuseError, DecodeError, UnsupportedError
from troth.formats.tpm.algorithms import HASHES
from troth.formats.tpm.credential import decode_credential, kdfa, make_credential
from troth.formats.tpm.public import decode_public

SECRET = b"0123456789abcdef0123456789abcdef"
ENDORSEMENT = {
    "ecc": p256("ek"),
    "ecc-p384": ec.generate_private_key(ec.SECP384R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", ENDORSEMENT)
def test_the_tpm_with_both_keys_opens_a_credential(kind: str) -> None:
    tpm = SoftwareTpm(endorsement=ENDORSEMENT[kind])
    made = make_credential(
        decode_public(tpm.endorsement_public), tpm.name, SECRET, random=os.urandom
    )
    assert tpm.activate(made.id_object, made.encrypted_seed, tpm.name) == SECRET


@pytest.mark.parametrize("kind", ENDORSEMENT)
def test_a_tpm_without_the_named_key_does_not_open_it(kind: str) -> None:
    tpm = SoftwareTpm(endorsement=ENDORSEMENT[kind])
    other = name_of(public_area(p256("another ak")))
    made = make_credential(decode_public(tpm.endorsement_public), other, SECRET, random=os.urandom)
    with pytest.raises(ValueError, match="TPM_RC_INTEGRITY"):
        tpm.activate(made.id_object, made.encrypted_seed, tpm.name)


def test_another_tpm_does_not_open_it() -> None:
    tpm, other = SoftwareTpm(), SoftwareTpm(endorsement=p256("another ek"))
    made = make_credential(
        decode_public(tpm.endorsement_public), tpm.name, SECRET, random=os.urandom
    )
    with pytest.raises(ValueError, match="TPM_RC_INTEGRITY"):
        other.activate(made.id_object, made.encrypted_seed, tpm.name)


def test_two_credentials_for_one_secret_have_nothing_in_common() -> None:
    tpm = SoftwareTpm()
    made = [
        make_credential(decode_public(tpm.endorsement_public), tpm.name, SECRET, random=os.urandom)
        for _ in range(2)
    ]
    assert made[0].id_object != made[1].id_object
    assert made[0].encrypted_seed != made[1].encrypted_seed


def test_a_credential_reads_as_it_was_written() -> None:
    tpm = SoftwareTpm()
    made = make_credential(
        decode_public(tpm.endorsement_public), tpm.name, SECRET, random=os.urandom
    )
    assert decode_credential(made.encode()) == made
    assert decode_credential(made.encode_file()) == made
    for size in range(len(made.encode())):
        with pytest.raises(DecodeError):
            decode_credential(made.encode()[:size])


def test_the_file_of_tpm2_makecredential_is_read() -> None:
    found = decode_credential((vectors("keylime") / "mkcred.out").read_bytes())
    assert (len(found.id_object), len(found.encrypted_seed)) == (45, 256)
    assert found.encode_file() == (vectors("keylime") / "mkcred.out").read_bytes()


def test_only_a_storage_key_receives_credentials() -> None:
    signing = decode_public(SoftwareTpm().public)
    with pytest.raises(UnsupportedError, match="not a restricted decryption key"):
        make_credential(signing, SoftwareTpm().name, SECRET, random=os.urandom)


@pytest.mark.parametrize(("old", "new"), [("00800043", "00800044"), ("00800043", "00400043")])
def test_a_cipher_that_we_do_not_have_is_refused(old: str, new: str) -> None:
    area = public_area(p256("ek"), attributes=EK_ATTRIBUTES, storage=True)
    changed = decode_public(area.replace(bytes.fromhex(old), bytes.fromhex(new)))
    with pytest.raises(UnsupportedError, match="accepted is CFB"):
        make_credential(changed, SoftwareTpm().name, SECRET, random=os.urandom)


@pytest.mark.parametrize("secret", [b"", bytes(33)])
def test_a_secret_fits_the_name_hash(secret: bytes) -> None:
    tpm = SoftwareTpm()
    with pytest.raises(ApiMisuseError, match="1 to 32 octets"):
        make_credential(decode_public(tpm.endorsement_public), tpm.name, secret, random=os.urandom)


def test_a_longer_kdf_output_does_not_begin_with_a_shorter_one() -> None:
    # The number of bits is part of what is hashed.
    sha256 = HASHES[11]
    short = kdfa(sha256, b"k", b"STORAGE", b"u", b"", 128)
    long = kdfa(sha256, b"k", b"STORAGE", b"u", b"", 512)
    assert (len(short), len(long)) == (16, 64)
    assert not long.startswith(short)
