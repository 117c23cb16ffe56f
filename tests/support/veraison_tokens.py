# SPDX-License-Identifier: Apache-2.0
"""Tokens made of the claims files that Veraison publishes, as its own tools make them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from troth.formats import cbor
from troth.formats.cose import sign1
from troth.formats.signer import LocalSigner


def psa_token(claims_file: Path, key_file: Path, **changes: object) -> bytes:
    """Sign Veraison's claims file, as its tools do."""
    said = json.loads(claims_file.read_text())
    octets = base64.b64decode
    claims: dict[int, object] = {
        265: said["eat-profile"],
        2394: said["psa-client-id"],
        2395: said["psa-security-lifecycle"],
        2396: octets(said["psa-implementation-id"]),
        2397: octets(said["psa-boot-seed"]),
        2399: [
            {
                1: each["measurement-type"],
                2: octets(each["measurement-value"]),
                4: each["version"],
                5: octets(each["signer-id"]),
            }
            for each in said["psa-software-components"]
        ],
        256: octets(said["psa-instance-id"]),
        2400: said["psa-verification-service-indicator"],
        10: octets(said["psa-nonce"]),
    }
    jwk = json.loads(key_file.read_text())
    number = int.from_bytes(base64.urlsafe_b64decode(jwk["d"] + "=="))
    key = changes.get("key") or ec.derive_private_key(number, ec.SECP256R1())
    return sign1(cbor.encode(claims), LocalSigner(key))  # type: ignore[arg-type]
