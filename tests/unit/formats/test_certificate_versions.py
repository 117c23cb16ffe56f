# SPDX-License-Identifier: Apache-2.0
"""cryptography refuses an X.509 version with an exception that is no ValueError."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.x509 import Plan, p256, sign, signing
from troth.errors import DecodeError
from troth.formats.cose import X5CHAIN, Sign1, sign1
from troth.formats.keys import load_keys
from troth.formats.signer import LocalSigner
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.identity.x509_svid import X509Svid


def version_9() -> bytes:
    der = bytearray(sign(Plan(), signing()).public_bytes(Encoding.DER))
    der[der.index(b"\xa0\x03\x02\x01\x02") + 4] = 9
    return bytes(der)


def pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("data", [version_9(), pem(version_9())], ids=["DER", "PEM"])
def test_no_reader_of_certificates_lets_the_librarys_exception_out(data: bytes) -> None:
    with pytest.raises(DecodeError):
        load_keys(data, source="test")
    with pytest.raises(DecodeError):
        X509Svid.decode(data)


def test_no_reader_of_embedded_certificates_does_either() -> None:
    token = sign1(b"x", LocalSigner(p256()), unprotected={X5CHAIN: version_9()})
    with pytest.raises(DecodeError):
        Sign1.decode(token, format="test").x5chain()
    element = {"kty": "EC", "use": "x509-svid", "x5c": [base64.b64encode(version_9()).decode()]}
    with pytest.raises(DecodeError):
        TrustBundle.decode(
            json.dumps({"keys": [element]}).encode(), trust_domain=TrustDomain("example.org")
        )
