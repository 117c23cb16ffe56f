# SPDX-License-Identifier: Apache-2.0
"""Signed JWTs that the WIMSE drafts publish, checked with the keys that they publish beside them.

WIT issuers' keys are not among the vectors, so of a WIT only its form is checked here.
"""

import base64
from pathlib import Path

import pytest

from support.vectors import vectors
from troth.errors import SignatureError, UnsupportedError
from troth.formats.base64url import decode_base64url
from troth.formats.jose import verify_jwt
from troth.formats.jwk import decode_jwk
from troth.formats.keys import VerificationKey
from troth.formats.strict_json import decode_json_object


@pytest.fixture
def folder() -> Path:
    return vectors("wimse-spiffe")


def claims_of(token: str) -> dict[str, object]:
    return decode_json_object(decode_base64url(token.split(".")[1], format="WIT"), format="WIT")


def confirmation_key(wit: str) -> VerificationKey:
    return decode_jwk(claims_of(wit)["cnf"]["jwk"], format="cnf")


def test_the_drafts_proof_token_verifies_under_the_key_in_its_identity_token(folder: Path) -> None:
    key = confirmation_key((folder / "wit.txt").read_text().strip())
    proof = (folder / "wpt.txt").read_text().strip()
    header, claims = verify_jwt(proof, [key], typ="wpt+jwt")
    assert header == {"alg": "EdDSA", "typ": "wpt+jwt"}
    assert claims["aud"] == "https://workload.example.com/path"
    with pytest.raises(UnsupportedError, match="another kind"):
        verify_jwt(proof, [key], typ="wit+jwt")


def test_one_bit_in_the_drafts_proof_token_breaks_it(folder: Path) -> None:
    key = confirmation_key((folder / "wit.txt").read_text().strip())
    head, payload, signature = (folder / "wpt.txt").read_text().strip().split(".")
    octets = bytearray(decode_base64url(signature, format="test"))
    octets[0] ^= 1
    other = base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
    with pytest.raises(SignatureError):
        verify_jwt(f"{head}.{payload}.{other}", [key], typ="wpt+jwt")


@pytest.mark.parametrize("name", ["wit.txt", "wit-svid-appendix-a.jwt"])
def test_an_identity_tokens_own_key_does_not_vouch_for_it(folder: Path, name: str) -> None:
    wit = (folder / name).read_text().strip()
    with pytest.raises(SignatureError):
        verify_jwt(wit, [confirmation_key(wit)], typ="wit+jwt")
