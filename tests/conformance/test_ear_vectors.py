# SPDX-License-Identifier: Apache-2.0
"""Every EAR that others published, judged as vectors/ear/SOURCES.md says a Verifier should.

Two published files are not what the table hopes for, and their tests say so: an example in draft 03
whose key is cut short, and a dump of python-ear's own objects that is not an EAR in any dialect.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc.jwk import ECKey

from support.diag import encode_diag
from support.vectors import vectors
from troth.errors import DecodeError, FreshnessError, SignatureError
from troth.formats.ar4si import TrustTier, TrustworthinessVector
from troth.formats.ear import PROFILES, Dialect, Ear, decode_ear, encode_ear, sign_ear, verify_ear
from troth.formats.keys import VerificationKey, load_keys
from troth.formats.signer import LocalSigner
from troth.formats.strict_json import decode_json

AFFIRMING, CONTRAINDICATED = TrustTier.AFFIRMING, TrustTier.CONTRAINDICATED
IAT = datetime(2022, 10, 23, 12, 46, 24, tzinfo=UTC)
AKPUB = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEcjSp8_MWM3gy8TugWO1TpQSj_vIksLpC-g8l5S3l"
    "pGb7PWWGoCAjEP8_A59VZwLXgwoZzN0WxuBPjpaWiWsfCQ"
)


@pytest.fixture
def folder() -> Path:
    return vectors("ear")


def json_ear(path: Path) -> Ear:
    ear = decode_ear(path.read_bytes(), wire="json")
    same = Dialect(PROFILES[ear.profile])
    again = json.loads(encode_ear(ear, same))
    assert again == json.loads(path.read_bytes())  # nothing lost, nothing bent
    return ear


@pytest.mark.parametrize(
    ("name", "label", "status", "vector"),
    [
        ("ear-claims.json", "test", AFFIRMING, None),
        ("ear-claims-extension-ok.json", "test", AFFIRMING, None),
        (
            "ear-claims-key-attestation-ok.json",
            "PARSEC_TPM",
            AFFIRMING,
            TrustworthinessVector(instance_identity=2, executables=2, hardware=2),
        ),
        (
            "ear-claims-tv-ok.json",
            "test",
            AFFIRMING,
            TrustworthinessVector(
                instance_identity=2,
                configuration=2,
                executables=3,
                file_system=2,
                hardware=2,
                runtime_opaque=2,
                storage_opaque=2,
                sourced_data=2,
            ),
        ),
    ],
)
def test_veraisons_good_claims_sets_decode(
    folder: Path, name: str, label: str, status: TrustTier, vector: TrustworthinessVector | None
) -> None:
    ear = json_ear(folder / "veraison-ear" / name)
    assert list(ear.submods) == [label]
    assert ear.submods[label].status is status
    assert ear.submods[label].vector == vector


def test_veraisons_key_attestation_without_a_key_is_refused(folder: Path) -> None:
    data = (folder / "veraison-ear" / "ear-claims-key-attestation-ko.json").read_bytes()
    with pytest.raises(DecodeError, match="'PARSEC_TPM': the key attestation"):
        decode_ear(data, wire="json")
    mended = data.replace(b'attestation": {}', b'attestation": {"akpub": "%s"}' % AKPUB.encode())
    assert len(decode_ear(mended, wire="json").keys) == 1


def test_veraisons_published_keys_sign_and_verify(folder: Path) -> None:
    import_key = json.loads((folder / "veraison-ear" / "skey.json").read_bytes())
    [public] = load_keys((folder / "veraison-ear" / "pkey.json").read_bytes(), source="pkey.json")
    [also] = load_keys((folder / "veraison-ear" / "skey.json").read_bytes(), source="skey.json")
    assert public.material == also.material
    signer = LocalSigner(_private(import_key))
    ear = json_ear(folder / "veraison-ear" / "ear-claims-tv-ok.json")
    token = sign_ear(ear, signer, Dialect.VERAISON, wire="jwt")
    assert accept(token, [public], now=ear.issued_at) == ear


def _private(jwk: dict[str, str]) -> object:
    return ECKey.import_key(jwk).private_key


def accept(token: bytes, keys: list[VerificationKey], *, now: datetime) -> Ear:
    return verify_ear(
        token,
        keys,
        now=now,
        max_age=timedelta(days=365),
        leeway=timedelta(0),
        profiles=PROFILES,
        require_key=False,
        require_exp=False,
    )


def test_c_ears_signed_token_verifies_under_its_key(folder: Path) -> None:
    token = (folder / "c-ear" / "ear.jwt").read_bytes().strip()
    keys = load_keys((folder / "c-ear" / "pkey.pem").read_bytes(), source="pkey.pem")
    not_before = datetime.fromtimestamp(1677247879, UTC)
    ear = accept(token, keys, now=not_before)
    assert ear.issued_at == IAT  # written as 1.666529184e+09
    assert ear.not_before == not_before
    assert ear.overall_status is AFFIRMING
    assert len(ear.keys) == 1
    with pytest.raises(FreshnessError, match="not valid before"):
        accept(token, keys, now=not_before - timedelta(seconds=1))


def test_c_ears_signed_token_is_refused_under_another_key_or_changed(folder: Path) -> None:
    token = (folder / "c-ear" / "ear.jwt").read_bytes().strip()
    keys = load_keys((folder / "c-ear" / "pkey.pem").read_bytes(), source="pkey.pem")
    other = VerificationKey(_private_p256().public_key())
    with pytest.raises(SignatureError):
        accept(token, [other], now=IAT)
    with pytest.raises(SignatureError):
        accept(token[:-3] + b"AAA", keys, now=IAT)


def _private_p256() -> object:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("ear-json-1", {"PSA": CONTRAINDICATED}),
        ("ear-json-2", {"CCA Platform": AFFIRMING, "CCA Realm": AFFIRMING}),
        ("ext-teep-json-1", {"PSA": CONTRAINDICATED}),
        ("ext-veraison-json-1", {"PSA_IOT": CONTRAINDICATED}),
    ],
)
def test_the_json_examples_of_draft_03_decode(
    folder: Path, name: str, statuses: dict[str, TrustTier]
) -> None:
    ear = json_ear(folder / "draft-03" / f"{name}.diag")
    assert {label: submod.status for label, submod in ear.submods.items()} == statuses


def test_draft_03s_example_with_a_key_cut_short_is_refused_until_the_key_is_whole(
    folder: Path,
) -> None:
    data = (folder / "draft-03" / "ext-veraison-json-2.diag").read_bytes()
    with pytest.raises(DecodeError, match="akpub is not a SubjectPublicKeyInfo"):
        decode_ear(data, wire="json")
    whole = data.replace(b"MFkwEwYHKoZIzj0CAQYIKoZIz___", AKPUB.encode())
    ear = decode_ear(whole, wire="json")
    assert ear.overall_status is AFFIRMING
    assert len(ear.keys) == 1


@pytest.mark.parametrize(
    ("name", "label", "status"),
    [
        ("ear-cbor-1", "PSA", CONTRAINDICATED),
        ("ext-teep-cbor-1", "PSA", TrustTier.NONE),
        ("ext-veraison-cbor-1", "PSA_IOT", TrustTier.NONE),
    ],
)
def test_the_cbor_examples_of_draft_03_decode(
    folder: Path, name: str, label: str, status: TrustTier
) -> None:
    encoded = encode_diag((folder / "draft-03" / f"{name}.diag").read_text())
    ear = decode_ear(encoded, wire="cbor")
    assert {label: submod.status for label, submod in ear.submods.items()} == {label: status}
    assert decode_ear(encode_ear(ear, Dialect.IETF_03, wire="cbor"), wire="cbor") == ear


def test_draft_03_says_the_same_in_json_and_in_cbor(folder: Path) -> None:
    json_text = (folder / "draft-03" / "ear-json-1.diag").read_bytes()
    cbor_text = (folder / "draft-03" / "ear-cbor-1.diag").read_text()
    from_json = decode_ear(json_text, wire="json")
    from_cbor = decode_ear(encode_diag(cbor_text), wire="cbor")
    assert from_json.submods == from_cbor.submods
    assert from_json.issued_at == from_cbor.issued_at == IAT
    assert from_json.verifier_id == from_cbor.verifier_id


def test_trustees_example_decodes(folder: Path) -> None:
    ear = json_ear(folder / "trustee" / "example.token.json")
    assert ear.profile == "tag:github.com,2024:confidential-containers/Trustee"
    assert ear.overall_status is CONTRAINDICATED
    assert ear.submods["cpu0"].vector == TrustworthinessVector(
        instance_identity=0,
        configuration=36,
        executables=33,
        file_system=0,
        hardware=97,
        runtime_opaque=0,
        storage_opaque=0,
        sourced_data=0,
    )
    assert ear.expires_at == datetime.fromtimestamp(1760426434, UTC)


def test_python_ears_dump_is_json_but_no_ear(folder: Path) -> None:
    data = (folder / "python-ear" / "jwt_output.json").read_bytes()
    assert decode_json(data, format="test")["profile"] == "test_profile"
    with pytest.raises(DecodeError, match="has no eat_profile"):
        decode_ear(data, wire="json")


def test_no_published_ear_is_left_out(folder: Path) -> None:
    judged = {
        "veraison-ear/ear-claims.json",
        "veraison-ear/ear-claims-tv-ok.json",
        "veraison-ear/ear-claims-extension-ok.json",
        "veraison-ear/ear-claims-key-attestation-ok.json",
        "veraison-ear/ear-claims-key-attestation-ko.json",
        "veraison-ear/pkey.json",
        "veraison-ear/skey.json",
        "c-ear/ear.jwt",
        "c-ear/pkey.pem",
        "draft-03/ear-cbor-1.diag",
        "draft-03/ear-json-1.diag",
        "draft-03/ear-json-2.diag",
        "draft-03/ext-teep-cbor-1.diag",
        "draft-03/ext-teep-json-1.diag",
        "draft-03/ext-veraison-cbor-1.diag",
        "draft-03/ext-veraison-json-1.diag",
        "draft-03/ext-veraison-json-2.diag",
        "python-ear/jwt_output.json",
        "trustee/example.token.json",
    }
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there - {"SOURCES.md"} == judged
