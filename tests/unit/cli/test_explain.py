# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from support.appraisal import IDENTITY, NOW, UNCHECKED, corims_of, keys_only, verifier_of
from support.evidence import simulate
from troth.cli import main as cli
from troth.errors import CollateralError, SignatureError, TrothError, UnsupportedError
from troth.evidence.simulator import CcaOptions
from troth.formats.ear import Dialect
from troth.formats.ear.codec import encode_ear
from troth.formats.signer import LocalSigner
from troth.verifier.failure import failure_result
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.verifier import signed

KEY = ec.generate_private_key(ec.SECP256R1())
PLATFORM = simulate(CcaOptions())
RESULT = verifier_of(keys_only(PLATFORM)).appraise(
    PLATFORM.attest(b"c" * 64), now=NOW, challenge=UNCHECKED
)
Explain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def explain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Explain:
    def run(content: bytes, *arguments: object) -> tuple[int, str, str]:
        path = tmp_path / "subject"
        path.write_bytes(content)
        with pytest.raises(SystemExit) as exit_:
            cli.run(["explain", str(path), *map(str, arguments)])
        captured = capsys.readouterr()
        code = exit_.value.code
        return code if isinstance(code, int) else -1, captured.out, captured.err

    return run


def pem(folder: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    path = folder / "key.pem"
    path.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return path


def report(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("wire", ["jwt", "cwt"])
@pytest.mark.parametrize("dialect", list(Dialect))
def test_every_claim_and_finding_of_a_result_is_put_in_words(
    explain: Explain, tmp_path: Path, dialect: Dialect, wire: str
) -> None:
    token = signed(RESULT, LocalSigner(KEY), dialect=dialect, wire=wire)  # type: ignore[arg-type]
    status, out, err = explain(token, "--key", pem(tmp_path, KEY))
    assert (status, err) == (0, "")
    found = report(out)
    assert found["kind"] == "attestation result"
    assert found["status"] == "warning"
    assert found["signature"] == "verified, ES256"
    executables = found["submods"]["cca-realm"]["trustworthiness"]["executables"]
    assert (executables["value"], executables["tag"]) == (33, "unrecognized_rt")
    assert executables["meaning"].endswith(".")
    claims = sorted(f["claim"] for f in found["findings"])
    assert claims == sorted(f.claim for f in RESULT.findings)
    assert all(f["remedy"] for f in found["findings"])


def test_text_says_the_same(explain: Explain) -> None:
    status, out, _ = explain(signed(RESULT, LocalSigner(KEY)), "--format", "text")
    assert status == 0
    assert out.startswith("Attestation result: WARNING\n")
    for words in ("not checked", "unknown code", "no Reference Value", "insecure", "remedy"):
        assert words in out


def test_a_result_under_another_key_is_refused(explain: Explain, tmp_path: Path) -> None:
    other = pem(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    for wire in ("jwt", "cwt"):
        token = signed(RESULT, LocalSigner(KEY), wire=wire)  # type: ignore[arg-type]
        status, out, err = explain(token, "--key", other)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1


def test_an_unsigned_claims_set_is_called_unsigned(explain: Explain) -> None:
    status, out, _ = explain(encode_ear(RESULT.to_ear(), Dialect.IETF_03))
    assert status == 0
    assert report(out)["signature"] == "unsigned"


def test_a_report_of_verify_is_explained(
    explain: Explain, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    token, corim = tmp_path / "token", tmp_path / "corim"
    changed = PLATFORM.with_measurement(0, b"\xee" * 32)
    token.write_bytes(changed.attest(b"c" * 64))
    corim.write_bytes(corims_of(PLATFORM)[0].encode())
    arguments = ["verify", str(token), "--reference-values", str(corim), "--format", "json"]
    for extra, refused in (["--allow-simulator"], False), ([], True):
        with pytest.raises(SystemExit):
            cli.run([*arguments, *extra])
        written = capsys.readouterr().out
        status, out, _ = explain(written.encode(), "--format", "text")
        assert status == 0
        assert out.startswith("Report of troth verify: ")
        assert ("refused" in out) is refused
        assert refused or "ee" * 32 in out


@pytest.mark.parametrize("platform", [simulate(), PLATFORM], ids=["psa", "cca"])
def test_evidence_is_taken_apart_and_called_unchecked(explain: Explain, platform: Any) -> None:
    status, out, _ = explain(platform.attest(b"c" * 64))
    assert status == 0
    found = report(out)
    assert found["kind"] == "evidence"
    assert found["signature"].startswith("not checked")
    assert found["status"] is None
    assert platform.instance_id.hex() in out
    status, text, _ = explain(platform.attest(b"c" * 64), "--format", "text")
    assert "nobody has checked it" in text
    assert platform.instance_id.hex() in text


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"{", b"a.b.c", b"\x00", b"\xd2\x84", b"[]", b'{"authentic": true}']
)
def test_what_cannot_be_read_is_refused_in_one_line(explain: Explain, content: bytes) -> None:
    status, out, err = explain(content)
    assert (status, out) == (2, "")
    assert err.startswith("troth explain: ")
    assert err.count("\n") == 1


def test_wrong_usage_has_status_3(explain: Explain) -> None:
    assert explain(b"", "--key", "/nonexistent")[0] == 3
    assert explain(b"", "--format", "xml")[0] == 3


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (CollateralError("the TCB info is missing", vendor="intel"), "none", "Undecided: "),
        (SignatureError("no trust anchor"), "contraindicated", "Something speaks against it"),
        (UnsupportedError("v9", format="report"), "none", "accuses nobody"),
    ],
)
def test_undecided_is_told_apart_from_contraindicated(
    explain: Explain, error: TrothError, status: str, words: str
) -> None:
    result = failure_result(
        error, scheme="psa", now=NOW, verifier=IDENTITY, policy=AppraisalPolicy.default()
    )
    _, out, _ = explain(encode_ear(result.to_ear(), Dialect.IETF_03))
    assert report(out)["status"] == status
    assert words in report(out)["meaning"]
    _, text, _ = explain(encode_ear(result.to_ear(), Dialect.IETF_03), "--format", "text")
    assert words in text.splitlines()[1]
