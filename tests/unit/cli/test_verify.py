# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from support.appraisal import corims_of, keys_only
from support.evidence import simulate
from troth.cli import main as cli
from troth.evidence.simulator import CcaOptions, SimulatedPlatform
from troth.formats import cbor
from troth.formats.corim.signed import sign_corim
from troth.formats.signer import LocalSigner

CHALLENGE = bytes(range(64))
PSA = simulate()
CCA = simulate(CcaOptions())


@dataclass
class Run:
    """What one invocation did."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


Troth = Callable[..., Run]


@pytest.fixture
def troth(capsys: pytest.CaptureFixture[str]) -> Troth:
    def run(*arguments: object) -> Run:
        with pytest.raises(SystemExit) as exit_:
            cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = exit_.value.code
        assert "Traceback" not in captured.err
        return Run(code if isinstance(code, int) else -1, captured.out, captured.err)

    return run


@dataclass
class Files:
    """Evidence and what is needed to verify it, in a folder."""

    folder: Path

    def evidence(self, platform: SimulatedPlatform = PSA, name: str = "token") -> Path:
        return self.write(name, platform.attest(CHALLENGE))

    def key(self, platform: SimulatedPlatform = PSA) -> Path:
        return self.write("key.pem", platform.reference().public_key_pem.encode())

    def corims(self, platform: SimulatedPlatform = PSA) -> list[object]:
        found: list[object] = []
        for index, corim in enumerate(corims_of(platform)):
            found += ["--reference-values", self.write(f"{index}.corim", corim.encode())]
        return found

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


SIMULATOR = "--allow-simulator"
NONCE = ("--nonce", CHALLENGE.hex())


@pytest.mark.parametrize("platform", [PSA, CCA], ids=["psa", "cca"])
def test_described_and_fresh_is_affirming(
    troth: Troth, files: Files, platform: SimulatedPlatform
) -> None:
    run = troth("verify", files.evidence(platform), *files.corims(platform), *NONCE, SIMULATOR)
    assert (run.status, run.err) == (0, "")
    report = run.report
    assert report["authentic"] is True
    assert report["scheme"] == platform.scheme
    assert report["status"] == "affirming"
    assert {finding["severity"] for finding in report["findings"]} == {"note"}
    assert report["insecure"] == ["platform simulator"]
    assert report["ear"]["ear_status"] == "affirming"
    labels = ["psa"] if platform is PSA else ["cca-platform", "cca-realm"]
    assert list(report["claims"]) == labels
    assert list(report["ear"]["submods"]) == labels


def test_without_reference_values_it_is_authentic_and_not_affirming(
    troth: Troth, files: Files
) -> None:
    run = troth("verify", files.evidence(), "--trust-anchor", files.key(), *NONCE, SIMULATOR)
    assert run.status == 1
    assert run.report["authentic"] is True
    assert run.report["status"] == "warning"
    finding = run.report["findings"][0]
    assert {"claim", "expected", "actual", "rule", "remedy"} <= finding.keys()
    assert finding["actual"] == "none provisioned"


def test_without_a_nonce_freshness_is_said_to_be_unchecked(troth: Troth, files: Files) -> None:
    run = troth("verify", files.evidence(), *files.corims(), SIMULATOR)
    assert run.status == 0
    (finding,) = [f for f in run.report["findings"] if f["claim"] == "freshness"]
    assert "freshness not checked" in finding["actual"]


def test_keys_in_reference_values_are_trust_anchors(troth: Troth, files: Files) -> None:
    anchors = files.write("keys.corim", keys_only(PSA).encode())
    run = troth("verify", files.evidence(), "--reference-values", anchors, *NONCE, SIMULATOR)
    assert run.status == 1


def test_a_trust_anchor_may_be_a_jwk_and_holds_for_any_instance(troth: Troth, files: Files) -> None:
    numbers = PSA.keys.attestation.public_key().public_numbers()  # type: ignore[union-attr]

    def field(value: int) -> str:
        import base64  # noqa: PLC0415 - only here

        return base64.urlsafe_b64encode(value.to_bytes(32)).decode().rstrip("=")

    jwk = {"kty": "EC", "crv": "P-256", "x": field(numbers.x), "y": field(numbers.y)}
    key = files.write("key.jwk", json.dumps(jwk))
    assert troth("verify", files.evidence(), "--trust-anchor", key, SIMULATOR).status == 1


def test_changed_firmware_is_a_finding_with_both_values(troth: Troth, files: Files) -> None:
    changed = PSA.with_measurement(0, b"\xee" * 32)
    run = troth("verify", files.evidence(changed), *files.corims(), *NONCE, SIMULATOR)
    assert run.status == 1
    (finding,) = [f for f in run.report["findings"] if f["severity"] != "note"]
    assert PSA.options.components[0].digest.hex() in finding["expected"]
    assert "ee" * 32 in finding["actual"]


def test_evidence_is_read_from_standard_input(
    troth: Troth, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    with files.evidence().open("rb") as stream:
        monkeypatch.setattr("sys.stdin", _Stdin(stream))
        assert troth("verify", "-", *files.corims(), *NONCE, SIMULATOR).status == 0


class _Stdin:
    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer


# --- refusals


def refused(run: Run, *words: str) -> None:
    assert run.status == 2
    assert run.err.startswith("troth verify: refused: ")
    assert run.err.count("\n") == 1
    for word in words:
        assert word in run.err
    report = run.report
    assert report["authentic"] is False
    assert report["status"] != "affirming"
    assert report["error"]
    assert report["claims"] == {}
    assert report["findings"][0]["severity"] == "contraindicated"


def test_no_matching_trust_anchor_is_a_refusal(troth: Troth, files: Files) -> None:
    refused(troth("verify", files.evidence(), SIMULATOR), "no trust anchor")
    stranger = simulate(seed="stranger")
    key = files.key(stranger)
    refused(troth("verify", files.evidence(), "--trust-anchor", key, SIMULATOR))
    refused(troth("verify", files.evidence(), *files.corims(stranger), SIMULATOR))


@pytest.mark.parametrize(
    "nonce",
    [CHALLENGE[:32], CHALLENGE[:8], CHALLENGE[:4], CHALLENGE + b"\0", bytes(64)],
    ids=["half", "eight", "four", "longer", "other"],
)
def test_another_nonce_is_a_refusal_a_prefix_too(troth: Troth, files: Files, nonce: bytes) -> None:
    refused(
        troth("verify", files.evidence(), *files.corims(), "--nonce", nonce.hex(), SIMULATOR),
        "nonce",
    )


def test_a_platform_that_is_not_bound_to_its_realm_is_a_refusal(troth: Troth, files: Files) -> None:
    other = replace(CCA, keys=replace(CCA.keys, realm=simulate(CcaOptions(), seed="x").keys.realm))
    one = cbor.decode(CCA.attest(CHALLENGE), format="t")
    two = cbor.decode(other.attest(CHALLENGE), format="t")
    assert isinstance(one, cbor.Tag)
    assert isinstance(two, cbor.Tag)
    mixed = cbor.Tag(one.number, {44234: one.value[44234], 44241: two.value[44241]})  # type: ignore[index]
    path = files.write("mixed", cbor.encode(mixed))
    refused(troth("verify", path, *files.corims(CCA), *NONCE, SIMULATOR), "realm")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xd2",
        b"\xff" * 100,
        b"not evidence",
        b"\xd2\x84\x43\xa1\x01\x26\xa0\x41\xa0\x40",
        b"\xd9\x03\x8b\xa0",
        b"\x9f" * 10_000,
        b"\xd2\x84" + b"\x81" * 10_000,
        b"\x00" * 2_000_000,
    ],
    ids=lambda content: content[:6].hex() + f"-{len(content)}",
)
def test_what_is_malformed_is_a_refusal(troth: Troth, files: Files, content: bytes) -> None:
    refused(troth("verify", files.write("e", content), *files.corims(), SIMULATOR))


def test_hexadecimal_text_is_refused_with_a_hint(troth: Troth, files: Files) -> None:
    text = files.write("e.hex", PSA.attest(CHALLENGE).hex() + "\n")
    refused(troth("verify", text, *files.corims(), SIMULATOR), "hexadecimal text")


def test_every_truncation_is_a_refusal(troth: Troth, files: Files) -> None:
    whole = PSA.attest(CHALLENGE)
    for size in range(0, len(whole), 37):
        refused(troth("verify", files.write("e", whole[:size]), *files.corims(), SIMULATOR))


def test_trailing_octets_are_a_refusal(troth: Troth, files: Files) -> None:
    refused(
        troth("verify", files.write("e", PSA.attest(CHALLENGE) + b"\0"), *files.corims(), SIMULATOR)
    )


def test_a_changed_octet_of_the_signature_is_a_refusal(troth: Troth, files: Files) -> None:
    token = bytearray(PSA.attest(CHALLENGE))
    token[-1] ^= 1
    refused(troth("verify", files.write("e", bytes(token)), *files.corims(), SIMULATOR))


def test_evidence_of_another_scheme_is_a_refusal(troth: Troth, files: Files) -> None:
    refused(troth("verify", files.evidence(), "--scheme", "cca", *files.corims(), SIMULATOR))


def test_the_simulator_is_a_refusal_unless_allowed(troth: Troth, files: Files) -> None:
    run = troth("verify", files.evidence(), *files.corims(), *NONCE)
    refused(run, "simulator", "--allow-simulator")


def test_in_text_a_refusal_is_one_line_on_standard_error(troth: Troth, files: Files) -> None:
    run = troth("verify", files.evidence(), "--format", "text", SIMULATOR)
    assert run.status == 2
    assert run.out == ""
    assert run.err.count("\n") == 1


# --- wrong usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonce", "xyz"],
        ["--nonce", "abc"],
        ["--nonce", ""],
        ["--at", "yesterday"],
        ["--at", "2026-11-25T12:00:00"],
        ["--scheme", "sgx2"],
        ["--format", "yaml"],
        ["--unknown"],
        ["--trust-anchor", "/nonexistent/key.pem"],
        ["--reference-values", "/nonexistent/a.corim"],
        ["--policy", "/nonexistent/a.rego"],
        ["--corim-key", "/nonexistent/key.pem"],
        ["--trust-anchor", "/dev/null"],
        ["--reference-values", "/dev/null"],
        ["extra-argument"],
    ],
    ids=" ".join,
)
def test_wrong_usage_has_status_3(troth: Troth, files: Files, arguments: list[str]) -> None:
    run = troth("verify", files.evidence(), *arguments)
    assert run.status == 3
    assert run.out == ""
    assert run.err


def test_missing_or_unreadable_evidence_is_wrong_usage(troth: Troth, files: Files) -> None:
    assert troth("verify").status == 3
    assert troth("verify", files.folder / "missing").status == 3
    assert troth("verify", files.folder).status == 3


def test_a_file_that_is_no_corim_is_named(troth: Troth, files: Files) -> None:
    path = files.write("bad.corim", b"\xa0")
    run = troth("verify", files.evidence(), "--reference-values", path)
    assert run.status == 3
    assert "bad.corim" in run.err


def test_help_explains_the_exit_status(troth: Troth) -> None:
    run = troth("verify", "--help")
    assert run.status == 0
    for line in ("0  affirming", "1  authentic", "2  refused", "3  wrong usage"):
        assert line in run.out


# --- endorsements


def test_a_signed_corim_needs_its_key(troth: Troth, files: Files) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (corim,) = corims_of(PSA)
    signed = files.write("s.corim", sign_corim(corim, LocalSigner(key), signer_name="maker"))
    pem = files.write("maker.pem", _pem(key))
    arguments = ["verify", files.evidence(), "--reference-values", signed, *NONCE, SIMULATOR]
    without = troth(*arguments)
    assert without.status == 3
    assert "--corim-key" in without.err
    assert troth(*arguments, "--corim-key", pem).status == 0
    other = files.write("other.pem", _pem(ec.generate_private_key(ec.SECP256R1())))
    assert troth(*arguments, "--corim-key", other).status == 3


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - only here

    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_reference_values_out_of_force_are_said_to_be(troth: Troth, files: Files) -> None:
    from troth.cli.inputs import Rfc3339  # noqa: PLC0415 - only here
    from troth.formats.corim import Validity  # noqa: PLC0415 - only here

    (corim,) = corims_of(PSA, keys=False)
    end = Rfc3339().convert("2026-01-01T00:00:00Z", None, None)
    dated = files.write("old.corim", replace(corim, validity=Validity(None, end)).encode())
    arguments = [
        "verify", files.evidence(), "--trust-anchor", files.key(),
        "--reference-values", dated, *NONCE, SIMULATOR,
    ]  # fmt: skip
    before = troth(*arguments, "--at", "2025-12-31T00:00:00Z")
    assert before.status == 0
    after = troth(*arguments, "--at", "2026-01-02T00:00:00Z")
    assert after.status == 1
    notes = [f for f in after.report["findings"] if f["claim"].endswith("old.corim")]
    assert "not in force at this time" in notes[0]["actual"]


# --- policy


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("", "no package"),
        ("package troth.appraisal\n", "no rule status"),
        ("package troth.appraisal\nstatus := {{{\n", "does not parse"),
        ('package troth.appraisal\nstatus := "affirming" { not typo }\n', "typo"),
        ('package troth.appraisal\nstatus := "affirming" { input.claims.no }\n', "undefined"),
        ("package troth.appraisal\nstatus := 1\n", "none of"),
    ],
)
def test_a_policy_that_fails_contraindicates(
    troth: Troth, files: Files, policy: str, words: str
) -> None:
    path = files.write("site.rego", policy)
    run = troth("verify", files.evidence(), *files.corims(), *NONCE, SIMULATOR, "--policy", path)
    assert run.status == 1
    assert run.report["status"] == "contraindicated"
    findings = [f for f in run.report["findings"] if f["claim"] == "appraisal-policy"]
    assert words in findings[0]["actual"]
    assert "site.rego" in findings[0]["rule"]


def test_a_policy_cannot_affirm_what_nobody_described(troth: Troth, files: Files) -> None:
    path = files.write("yes.rego", 'package troth.appraisal\nstatus := "affirming"\n')
    arguments = ["verify", files.evidence(), *NONCE, SIMULATOR, "--policy", path]
    assert troth(*arguments, "--trust-anchor", files.key()).status == 1
    assert troth(*arguments, *files.corims()).status == 0


def test_the_result_names_policy_and_digest(troth: Troth, files: Files) -> None:
    path = files.write("site.rego", 'package troth.appraisal\nstatus := "warning"\n')
    run = troth("verify", files.evidence(), *files.corims(), *NONCE, SIMULATOR, "--policy", path)
    assert run.status == 1
    report = run.report
    assert report["policy"]["id"] == "site"
    assert report["ear"]["troth_policy_digest"] == f"sha-256:{report['policy']['sha-256']}"


def test_an_endless_policy_is_ended(troth: Troth, files: Files) -> None:
    path = files.write(
        "slow.rego",
        "package troth.appraisal\n"
        "n := count([1 | numbers.range(1, 9000)[_] > 0; numbers.range(1, 9000)[_] > 0])\n"
        'status := "affirming" { n > 0 }\n',
    )
    run = troth("verify", files.evidence(), *files.corims(), *NONCE, SIMULATOR, "--policy", path)
    assert run.status == 1
    assert "longer than 1 s" in json.dumps(run.report["findings"])


# --- text


def test_text_says_every_part_of_every_finding(troth: Troth, files: Files) -> None:
    changed = PSA.with_measurement(0, b"\xee" * 32).with_measurement(1, b"\xdd" * 32)
    run = troth("verify", files.evidence(changed), *files.corims(), SIMULATOR, "--format", "text")
    assert run.status == 1
    assert run.out.startswith("WARNING: ")
    assert "\x1b" not in run.out
    for words in ("INSECURE", "executables", "unknown code", "expected", "actual", "remedy"):
        assert words in run.out
    for digest in ("ee" * 32, "dd" * 32, PSA.options.components[0].digest.hex()):
        assert digest in run.out
    assert "freshness not checked" in run.out


def test_a_hostile_claim_steers_no_terminal(troth: Troth, files: Files) -> None:
    first, *rest = PSA.options.components
    hostile = replace(
        PSA,
        options=replace(PSA.options, components=(replace(first, version="1\x1b[2J"), *rest)),
    )
    run = troth("verify", files.evidence(hostile), *files.corims(), SIMULATOR, "--format", "text")
    assert "\x1b" not in run.out
    assert "1\\x1b[2J" in run.out


# --- the program


@pytest.mark.parametrize(("anchor", "status"), [(True, 1), (False, 2)])
def test_the_program_exits_with_the_status(files: Files, *, anchor: bool, status: int) -> None:
    arguments = ["--trust-anchor", str(files.key())] if anchor else []
    done = subprocess.run(
        [sys.executable, "-m", "troth", "verify", str(files.evidence()), SIMULATOR, *arguments],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status
    assert json.loads(done.stdout)["authentic"] is anchor
    assert b"Traceback" not in done.stderr


def test_the_program_exits_with_3_for_wrong_usage() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "troth", "verify", "--nonsense"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
