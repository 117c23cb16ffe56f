# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re

import pytest

from support.evidence import seeded, simulate
from support.vectors import vectors
from troth.errors import SignatureError
from troth.evidence.insecure import SIMULATOR_MARK, refuse_published_key, refuse_simulator
from troth.evidence.published_keys import PUBLISHED_KEYS
from troth.formats.keys import load_keys, thumbprint

_IAK = "9fbc82b47c93efda88672e09d2f5e7e2a5533690be4dc1c1bbbe7400a1e3156d"

_TEST_KEYS = [
    "psa/rfc9783/tfm-es-iak.json",
    "psa/veraison-services/ec.p256.jwk",
    "cca/iat-verifier/cca_platform.pem",
    "cca/iat-verifier/cca_realm.pem",
    "cca/iat-verifier/cca_realm2.pem",
    "cca/ccatoken/cca_platform.pub",
    "cca/veraison-services/ec.p256.jwk",
    "cca/veraison-services/ec.p384.jwk",
    "corim/ec-p256.jwk",
    "ear/veraison-ear/skey.json",
    "ear/veraison-ear/pkey.json",
    "ear/c-ear/pkey.pem",
    "wimse-spiffe/sigs-svca-jwk.txt",
    "wimse-spiffe/sigs-svcb-jwk.txt",
]


@pytest.mark.parametrize("path", _TEST_KEYS)
def test_every_key_that_the_vectors_call_a_test_key_is_on_the_list(path: str) -> None:
    folder, _, name = path.partition("/")
    for key in load_keys((vectors(folder) / name).read_bytes(), source=path):
        assert thumbprint(key) in PUBLISHED_KEYS


def test_the_symmetric_key_of_rfc_9783_is_on_the_list() -> None:
    folded = (vectors("psa") / "rfc9783/tfm-hs-iak.json").read_text()
    jwk = json.loads(re.sub(r"\\\n\s*\\", "", folded[folded.index("{") :]))
    (key,) = load_keys(json.dumps(jwk).encode(), source="RFC 9783")
    assert thumbprint(key) in PUBLISHED_KEYS


def test_every_entry_is_a_thumbprint_with_a_provenance() -> None:
    for entry, origin in PUBLISHED_KEYS.items():
        assert re.fullmatch("[0-9a-f]{64}", entry)
        assert origin


def test_a_key_drawn_at_random_is_not_on_the_list() -> None:
    pem = simulate(seed="fresh").reference().public_key_pem
    (key,) = load_keys(pem.encode(), source="x")
    assert refuse_published_key(thumbprint(key), role="IAK", allowed=False) == ()


def test_a_published_key_is_refused_with_the_option_that_would_allow_it() -> None:
    with pytest.raises(SignatureError, match=r"IAK is a published test key \(IAK of RFC 9783") as e:
        refuse_published_key(_IAK, role="IAK", allowed=False)
    assert "--allow-test-keys" in e.value.remedy
    assert _IAK in e.value.remedy


def test_a_published_key_that_is_allowed_stays_labelled() -> None:
    (reason,) = refuse_published_key(_IAK, role="IAK", allowed=True)
    assert reason.startswith("published test key as IAK: IAK of RFC 9783")


def test_the_simulator_is_refused_with_the_option_that_would_allow_it() -> None:
    with pytest.raises(SignatureError, match="platform simulator") as e:
        refuse_simulator(SIMULATOR_MARK + b"psa-1\0\0\0", allowed=False)
    assert "--allow-simulator" in e.value.remedy


def test_the_simulator_stays_labelled_when_allowed() -> None:
    assert refuse_simulator(SIMULATOR_MARK + b"psa-1\0\0\0", allowed=True) == (
        "platform simulator",
    )


@pytest.mark.parametrize("changed", [0, len(SIMULATOR_MARK) - 1])
def test_other_implementations_pass_as_they_are(changed: int) -> None:
    other = bytearray(SIMULATOR_MARK + b"psa-1\0\0\0")
    other[changed] ^= 1
    assert refuse_simulator(bytes(other), allowed=False) == ()
    assert refuse_simulator(seeded("x")(32), allowed=False) == ()
