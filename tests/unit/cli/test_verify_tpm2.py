# SPDX-License-Identifier: Apache-2.0
"""`troth verify` and `troth corim create` on a quote in the files that tpm2-tools write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.cli import Ran, run_cli
from support.software_tpm import (
    AK_ATTRIBUTES,
    SHA256,
    BootLog,
    FileLog,
    SoftwareTpm,
    p256,
    sized,
)
from support.vectors import vectors

CHALLENGE = bytes(range(32))
PCRS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]


class Files:
    """A machine's quote in files."""

    def __init__(
        self, folder: Path, *, pcrs: list[int] = PCRS, tpm: SoftwareTpm | None = None, **boot: Any
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.tpm = tpm or SoftwareTpm()
        log, files = BootLog(tpm=self.tpm), FileLog(tpm=self.tpm)
        log.boot(**boot)
        files.add_aggregate(self.tpm)
        files.add("/usr/bin/envoy", b"envoy")
        quote = self.tpm.quote(CHALLENGE, {SHA256: pcrs})
        values = {str(pcr): self.tpm.registers[SHA256][pcr].hex() for pcr in range(24)}
        self.write("quote", quote)
        self.write("signature", self.tpm.sign(quote))
        self.write("pcrs.json", json.dumps({"sha256": values}).encode())
        self.write("boot.log", log.data)
        self.write("ima.log", files.ascii)
        self.write("ak.pub", sized(self.tpm.public))
        self.write("ak.pem", self.tpm.pem)

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def options(
        self, *, key: str = "ak.pub", log: bool = True, files: bool = False
    ) -> list[object]:
        options: list[object] = [
            *("--scheme", "tpm2", "--signature", self.folder / "signature"),
            *("--pcrs", self.folder / "pcrs.json", "--trust-anchor", self.folder / key),
            *("--nonce", CHALLENGE.hex(), "--format", "json"),
        ]
        if log:
            options += ["--event-log", self.folder / "boot.log"]
        if files:
            options += ["--ima-log", self.folder / "ima.log"]
        return options


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def verify(host: Files, *more: object, **options: Any) -> Ran:
        return run_cli(capsys, "verify", host.folder / "quote", *host.options(**options), *more)

    return verify


@pytest.fixture
def create(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    def corim(files: Files, *more: object) -> Path:
        ran = run_cli(
            capsys,
            *("corim", "create", "--scheme", "tpm2", "--evidence", files.folder / "quote"),
            *("--signature", files.folder / "signature", "--pcrs", files.folder / "pcrs.json"),
            *("--event-log", files.folder / "boot.log", "--key", files.folder / "ak.pub"),
            *("--id", "good", "--class-id", "0102", "--out-dir", tmp_path, "--force", *more),
        )
        assert ran.status == 0, ran.err
        return tmp_path / "good.cbor"

    return corim


def report(ran: Ran) -> Any:
    return json.loads(ran.out)


def claims(ran: Ran) -> list[str]:
    return [finding["claim"] for finding in report(ran)["findings"]]


def test_a_machine_as_described_is_affirming(run: Any, create: Any, tmp_path: Path) -> None:
    files = Files(tmp_path / "host")
    ran = run(files, "--reference-values", create(files, "--with-key"))
    assert ran.status == 0
    assert report(ran)["status"] == "affirming"
    assert report(ran)["tier"] == "measured"
    assert report(ran)["claims"]["tpm2"]["nonce"] == CHALLENGE.hex()


def test_values_without_the_key_are_meant_for_the_key_beside_them(
    run: Any, create: Any, tmp_path: Path
) -> None:
    files = Files(tmp_path / "host")
    assert run(files, "--reference-values", create(files)).status == 0


def test_a_changed_boot_says_which_event_it_was(run: Any, create: Any, tmp_path: Path) -> None:
    corim = create(Files(tmp_path / "good"), "--with-key")
    changed = Files(tmp_path / "changed", command="linux /vmlinuz quiet init=/bin/sh")
    ran = run(changed, "--reference-values", corim)
    assert ran.status == 1
    told = {finding["claim"]: finding for finding in report(ran)["findings"]}
    assert "grub_cmd: linux /vmlinuz quiet init=/bin/sh" in told["PCR 8: event 14"]["actual"]
    assert "PCR 8 (commands of the boot loader)" in told


def test_files_are_compared_where_they_are_sent(run: Any, create: Any, tmp_path: Path) -> None:
    files = Files(tmp_path / "host", pcrs=[*PCRS, 10])
    corim = create(files, "--with-key", "--ima-log", tmp_path / "host" / "ima.log")
    ran = run(files, "--reference-values", corim, files=True)
    assert ran.status == 0
    vector = report(ran)["ear"]["submods"]["tpm2"]["ear_trustworthiness_vector"]
    assert (vector["file-system"], vector["executables"]) == (2, 2)


def test_without_values_it_is_authentic_and_not_affirming(run: Any, tmp_path: Path) -> None:
    ran = run(Files(tmp_path / "host"))
    assert ran.status == 1
    assert report(ran)["authentic"] is True


def test_the_key_may_be_a_pem_file_whose_attributes_nobody_sees(run: Any, tmp_path: Path) -> None:
    tpm = SoftwareTpm(attributes=AK_ATTRIBUTES & ~(1 << 16))
    files = Files(tmp_path / "host", tpm=tpm)
    assert run(files, key="ak.pem").status == 1
    refused = run(files, key="ak.pub")
    assert refused.status == 2
    assert "the attestation key is not restricted" in refused.err


def test_a_quote_behind_its_length_is_the_same_quote(run: Any, tmp_path: Path) -> None:
    files = Files(tmp_path / "host")
    files.write("quote", sized((files.folder / "quote").read_bytes()))
    assert run(files).status == 1


def test_fewer_registers_than_asked_for_are_a_refusal(run: Any, tmp_path: Path) -> None:
    files = Files(tmp_path / "host", pcrs=[0, 4, 7])
    assert run(files, "--pcr-selection", "0,4,7").status == 1
    refused = run(files, "--pcr-selection", "0,1,4,7,9")
    assert refused.status == 2
    assert "PCR 1, 9 were asked for and not quoted" in refused.err
    assert report(refused)["authentic"] is False


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("quote", b"\xffTCG", "TPMS_ATTEST"),
        ("quote", b"", "no TPM made it"),
        ("signature", b"", "TPMT_SIGNATURE"),
        ("pcrs.json", b"{}", "is over PCR 0 (sha-256), 1 (sha-256)"),
        ("pcrs.json", b"nonsense", "PCR values: line 1"),
        ("boot.log", b"nonsense", "event log"),
    ],
)
def test_a_broken_file_is_a_refusal_that_names_it(
    run: Any, tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    files = Files(tmp_path / "host")
    files.write(name, data)
    ran = run(files)
    assert ran.status == 2
    assert reason in ran.err


def test_files_of_different_quotes_are_a_refusal(run: Any, tmp_path: Path) -> None:
    files, other = Files(tmp_path / "host"), Files(tmp_path / "other", kernel=b"another")
    for name, reason in (
        ("signature", "does not verify"),
        ("pcrs.json", "not the quoted ones"),
        ("boot.log", "does not lead to the quoted PCR 9"),
    ):
        kept = (files.folder / name).read_bytes()
        files.write(name, (other.folder / name).read_bytes())
        ran = run(files)
        assert ran.status == 2, name
        assert reason in ran.err
        files.write(name, kept)


def test_another_nonce_is_a_refusal(run: Any, tmp_path: Path) -> None:
    ran = run(Files(tmp_path / "host"), "--nonce", "00" * 32)
    assert ran.status == 2
    assert "extraData is not the challenge" in ran.err


def test_another_key_is_a_refusal(run: Any, tmp_path: Path) -> None:
    files = Files(tmp_path / "host")
    files.write("ak.pub", sized(SoftwareTpm(key=p256("other")).public))
    assert run(files).status == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--pcr-selection", "0,24"], "registers from 0 to 23"),
        (["--pcr-selection", "0,0"], "each once"),
        (["--pcr-selection", "sha256:0"], "expected registers such as"),
        (["--scheme", "psa"], "--scheme tpm2 beside it"),
        (["--event-log", "/nowhere"], "a readable file"),
    ],
)
def test_wrong_usage_has_its_own_status(
    run: Any, tmp_path: Path, arguments: list[str], reason: str
) -> None:
    ran = run(Files(tmp_path / "host"), *arguments)
    assert ran.status == 3
    assert reason in ran.err


@pytest.mark.parametrize(
    ("given", "missing"), [("--signature", "--pcrs"), ("--pcrs", "--signature")]
)
def test_signature_and_values_go_together(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, given: str, missing: str
) -> None:
    files = Files(tmp_path / "host")
    ran = run_cli(
        capsys,
        "verify",
        "--scheme",
        "tpm2",
        files.folder / "quote",
        given,
        files.folder / "signature",
    )
    assert ran.status == 3
    assert f"{missing} FILE beside it" in ran.err


def test_evidence_in_one_piece_is_recognised(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tpm = SoftwareTpm()
    (tmp_path / "evidence").write_bytes(tpm.evidence(CHALLENGE))
    (tmp_path / "ak.pub").write_bytes(tpm.public)
    arguments = (tmp_path / "evidence", "--trust-anchor", tmp_path / "ak.pub", "--format", "json")
    assert report(run_cli(capsys, "verify", *arguments))["scheme"] == "tpm2"


def test_keylimes_files_are_taken_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    base = vectors("keylime")
    arguments = (
        *("--scheme", "tpm2", base / "quote.out", "--signature", base / "quotesig.out"),
        *("--pcrs", base / "quotepcr.out", "--trust-anchor", base / "ak.pub"),
        *("--pcr-selection", "15,16,22", "--format", "json"),
    )
    ran = run_cli(capsys, "verify", *arguments)
    assert ran.status == 1
    assert (
        report(ran)["claims"]["tpm2"]["attestation-key"]["name"]
        == (base / "ak.name").read_bytes().hex()
    )


class TestCreate:
    def test_registers_that_keep_changing_are_left_out(
        self, capsys: pytest.CaptureFixture[str], create: Any, tmp_path: Path
    ) -> None:
        files = Files(tmp_path / "host", pcrs=[*PCRS, 10, 11, 14])
        shown = run_cli(capsys, "corim", "show", create(files)).out
        assert "14" in shown
        assert "tpm2.event.8" in shown
        assert "EV_IPL grub_cmd: linux /vmlinuz ro quiet" in shown
        assert "\n        10" not in shown

    def test_registers_may_be_chosen_and_must_have_been_quoted(
        self, capsys: pytest.CaptureFixture[str], create: Any, tmp_path: Path
    ) -> None:
        files = Files(tmp_path / "host")
        shown = run_cli(capsys, "corim", "show", create(files, "--pcr-selection", "4,9")).out
        assert "tpm2.event.4" in shown
        assert "tpm2.event.8" not in shown
        with pytest.raises(AssertionError, match="registers that were quoted"):
            create(files, "--pcr-selection", "4,15")

    def test_the_class_must_be_named(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        files = Files(tmp_path / "host")
        ran = run_cli(
            capsys,
            *("corim", "create", "--scheme", "tpm2", "--evidence", files.folder / "quote"),
            *("--signature", files.folder / "signature", "--pcrs", files.folder / "pcrs.json"),
            *("--unverified", "--id", "good", "--out-dir", tmp_path),
        )
        assert ran.status == 3
        assert "TPM Evidence does not name its class" in ran.err

    def test_a_quote_of_another_key_makes_no_values(self, create: Any, tmp_path: Path) -> None:
        files = Files(tmp_path / "host")
        files.write("ak.pub", sized(SoftwareTpm(key=p256("other")).public))
        with pytest.raises(AssertionError, match="does not verify"):
            create(files)
