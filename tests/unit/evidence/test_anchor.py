# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.evidence import FixedAnchors
from troth.errors import ChainError, SignatureError
from troth.evidence.anchor import (
    ECDSA,
    HMAC,
    MAX_CANDIDATE_KEYS,
    anchor_thumbprint,
    refuse_certificate_chain,
    verify_under_anchors,
)
from troth.formats.cose import Mac0, Sign1, mac0, sign1
from troth.formats.keys import VerificationKey, thumbprint
from troth.formats.signer import LocalSigner

_PRIVATE = ec.generate_private_key(ec.SECP256R1())
_KEY = VerificationKey(_PRIVATE.public_key(), source="right")
_OTHERS = [
    VerificationKey(ec.generate_private_key(ec.SECP256R1()).public_key(), source=f"other {index}")
    for index in range(3)
]
_P384 = VerificationKey(ec.generate_private_key(ec.SECP384R1()).public_key(), source="P-384")
_MAC_KEY = VerificationKey(b"k" * 32, source="octets")

_SIGNED = Sign1.decode(sign1(b"payload", LocalSigner(_PRIVATE)), format="token")
_MACED = Mac0.decode(mac0(b"payload", b"k" * 32), format="token")


def find(message: Sign1 | Mac0, *keys: VerificationKey) -> VerificationKey:
    return verify_under_anchors(
        message,
        scheme="psa",
        implementation_id=b"\xaa" * 32,
        instance_id=b"\x01" + b"\xbb" * 32,
        trust_anchors=FixedAnchors(*keys),
        algorithms=ECDSA if isinstance(message, Sign1) else HMAC,
    )


@pytest.mark.parametrize("place", range(4))
def test_each_registered_key_is_tried(place: int) -> None:
    keys: list[VerificationKey] = [*_OTHERS]
    keys.insert(place, _KEY)
    assert find(_SIGNED, *keys) is _KEY


def test_a_key_that_does_not_fit_does_not_hide_the_one_that_does() -> None:
    assert find(_SIGNED, _MAC_KEY, _P384, _KEY) is _KEY
    assert find(_MACED, _KEY, _MAC_KEY) is _MAC_KEY


def test_the_source_is_asked_for_exactly_this_attester() -> None:
    anchors = FixedAnchors(_KEY)
    verify_under_anchors(
        _SIGNED,
        scheme="cca",
        implementation_id=b"class",
        instance_id=b"instance",
        trust_anchors=anchors,
        algorithms=ECDSA,
    )
    assert anchors.asked == [("cca", b"class", b"instance")]


def test_no_registered_key_is_a_refusal_that_names_the_attester() -> None:
    with pytest.raises(SignatureError, match=f"no trust anchor for instance id 01{'bb' * 32}") as e:
        find(_SIGNED)
    assert "CoRIM" in e.value.remedy


def test_a_wrong_key_is_a_refusal_that_names_its_source() -> None:
    with pytest.raises(SignatureError, match="does not verify under the key from other 0"):
        find(_SIGNED, _OTHERS[0])


def test_several_wrong_keys_are_all_named() -> None:
    with pytest.raises(
        SignatureError, match=r"none of the 3 trust anchors.*other 0.*P-384.*octets"
    ):
        find(_SIGNED, _OTHERS[0], _P384, _MAC_KEY)


def test_a_public_key_never_serves_as_a_mac_key_nor_the_other_way_round() -> None:
    with pytest.raises(SignatureError, match="symmetric"):
        find(_MACED, _KEY)
    with pytest.raises(SignatureError, match="secp256r1"):
        find(_SIGNED, _MAC_KEY)


def test_the_number_of_keys_tried_is_bounded() -> None:
    spare = [_OTHERS[0]] * (MAX_CANDIDATE_KEYS - 1)
    assert find(_SIGNED, *spare, _KEY) is _KEY
    with pytest.raises(SignatureError, match="MAX_CANDIDATE_KEYS=16"):
        find(_SIGNED, _OTHERS[0], *spare, _KEY)


@pytest.mark.parametrize(
    ("label", "name"), [(32, "x5bag"), (33, "x5chain"), (34, "x5t"), (35, "x5u")]
)
@pytest.mark.parametrize("where", ["protected", "unprotected"])
def test_certificates_in_the_headers_are_refused_by_name(label: int, name: str, where: str) -> None:
    token = sign1(b"payload", LocalSigner(_PRIVATE), **{where: {label: b"certificate"}})
    with pytest.raises(ChainError, match=rf"header {label} \({name}\)"):
        refuse_certificate_chain(Sign1.decode(token, format="token"))


def test_other_headers_pass() -> None:
    token = sign1(b"payload", LocalSigner(_PRIVATE), unprotected={4: b"kid"})
    refuse_certificate_chain(Sign1.decode(token, format="token"))


def test_the_thumbprint_is_the_keys_own_each_time() -> None:
    for key in (_KEY, *_OTHERS, _KEY, _MAC_KEY):
        assert anchor_thumbprint(key) == thumbprint(key)
        assert anchor_thumbprint(key) == thumbprint(key)


def test_remembered_thumbprints_do_not_grow_without_end_nor_mix_up_keys() -> None:
    for _ in range(3000):
        key = VerificationKey(_OTHERS[0].material)
        assert anchor_thumbprint(key) == thumbprint(_OTHERS[0])
    assert anchor_thumbprint(_KEY) == thumbprint(_KEY)
    from troth.evidence import anchor  # noqa: PLC0415 - to see what it remembers

    assert len(anchor._thumbprints) <= 1024
