# SPDX-License-Identifier: Apache-2.0
"""The Attester of a TPM, with a driver that plays the TPM; swtpm plays it in tests/interop."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.software_tpm import SHA256, BootLog, FileLog, SoftwareTpm, p256, sized
from troth.adapters import tpm_device, tpm_tools
from troth.adapters.tpm_device import DEFAULT_REGISTERS, TpmAttester, TpmSettings, open_driver
from troth.adapters.tpm_driver import (
    AK_TEMPLATE,
    EK_TEMPLATES,
    SRK_TEMPLATE,
    EndorsementKey,
    TpmQuote,
    WrappedKey,
    der_of,
)
from troth.adapters.tpm_esys import EsysDriver, has_esys
from troth.adapters.tpm_tools import ToolsDriver
from troth.errors import ApiMisuseError, ConfigurationError, DecodeError, UnavailableError
from troth.evidence.evidence import NonceMatched
from troth.evidence.tpm2 import SCHEME
from troth.evidence.tpm2.activation import ActivationRequest
from troth.evidence.tpm2.attestation_key import require_attestation_key
from troth.formats.keys import VerificationKey
from troth.formats.tpm.credential import Credential
from troth.formats.tpm.public import attribute_names, decode_public

CHALLENGE = bytes(range(32))


class FakeDriver:
    """A TPM that makes keys one after the other."""

    source = "a fake"

    def __init__(self, tpm: SoftwareTpm) -> None:
        self.tpm = tpm
        self.made = 0
        self.quoted: list[list[int]] = []
        self.closed = False

    def create_attestation_key(self) -> WrappedKey:
        self.made += 1
        self.tpm.key = p256(f"made {self.made}")
        return WrappedKey(sized(self.tpm.public), b"wrapped")

    def endorsement_key(self) -> EndorsementKey:
        return EndorsementKey(sized(self.tpm.endorsement_public))

    def quote(self, key: WrappedKey, challenge: bytes, bank: str, registers: list[int]) -> TpmQuote:
        assert (key.public, bank) == (sized(self.tpm.public), "sha256")
        self.quoted.append(registers)
        quote = self.tpm.quote(challenge, {SHA256: registers})
        return TpmQuote(quote, self.tpm.sign(quote), self.tpm.values({SHA256: registers}))

    def activate(self, key: WrappedKey, credential: Credential) -> bytes:
        assert key.public == sized(self.tpm.public)
        return self.tpm.activate(credential.id_object, credential.encrypted_seed, self.tpm.name)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(SoftwareTpm())


@pytest.fixture
def settings(tmp_path: Path) -> TpmSettings:
    return TpmSettings(
        state=tmp_path / "ak.json",
        event_log=tmp_path / "binary_bios_measurements",
        ima_log=tmp_path / "binary_runtime_measurements",
    )


def attester(settings: TpmSettings, driver: FakeDriver) -> TpmAttester:
    return TpmAttester(settings, driver=lambda _: driver)


class Anchors:
    def __init__(self, driver: FakeDriver) -> None:
        self._key = VerificationKey(driver.tpm.key.public_key())

    def keys(self, *_: object, **__: object) -> Sequence[VerificationKey]:
        return [self._key]

    def certificates(self, scheme: str) -> Sequence[Any]:
        del scheme
        return []


def verified(evidence: bytes, driver: FakeDriver) -> Any:
    return SCHEME.verify(
        SCHEME.decode(evidence), trust_anchors=Anchors(driver), freshness=CHALLENGE
    )


def test_it_makes_evidence_that_verifies(settings: TpmSettings, driver: FakeDriver) -> None:
    evidence = attester(settings, driver).attest(CHALLENGE)
    result = verified(evidence, driver)
    assert result.freshness == NonceMatched(CHALLENGE)
    assert driver.quoted == [sorted(DEFAULT_REGISTERS)]
    assert SCHEME.decode(evidence).event_log is None
    assert SCHEME.decode(evidence).ima_log is None


def test_logs_that_are_there_come_along(settings: TpmSettings, driver: FakeDriver) -> None:
    made = attester(settings, driver)
    log, files = BootLog(tpm=driver.tpm), FileLog(tpm=driver.tpm)
    log.boot()
    files.add("/bin/sh", b"shell")
    assert settings.event_log is not None
    assert settings.ima_log is not None
    settings.event_log.write_bytes(log.data)
    settings.ima_log.write_bytes(files.binary)
    measured = verified(made.attest(CHALLENGE), driver).measured
    assert measured.secure_boot is True
    assert [each.path for each in measured.files] == ["/bin/sh"]
    assert driver.quoted == [sorted([*DEFAULT_REGISTERS, 10])]


def test_a_log_longer_than_a_verifier_takes_is_not_sent(
    settings: TpmSettings, driver: FakeDriver
) -> None:
    assert settings.ima_log is not None
    settings.ima_log.write_bytes(bytes(2_097_153))
    with pytest.raises(UnavailableError, match="more than 2097152 octets"):
        attester(settings, driver).attest(CHALLENGE)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_challenge_has_32_octets(settings: TpmSettings, driver: FakeDriver, size: int) -> None:
    with pytest.raises(ApiMisuseError, match="32 octets"):
        attester(settings, driver).attest(bytes(size))


def test_the_key_is_kept_and_belongs_to_its_user_alone(
    settings: TpmSettings, driver: FakeDriver
) -> None:
    first = attester(settings, driver)
    again = attester(settings, driver)
    assert driver.made == 1
    assert again.attestation_key.name == first.attestation_key.name
    assert stat.S_IMODE(settings.state.stat().st_mode) == 0o600
    settings.state.unlink()
    assert attester(settings, driver).attestation_key.name != first.attestation_key.name


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"[]",
        json.dumps({"format": "other"}).encode(),
        json.dumps({"format": "troth-tpm-ak/1", "public": "00", "private": ""}).encode(),
        json.dumps({"format": "troth-tpm-ak/1", "public": "zz", "private": ""}).encode(),
    ],
)
def test_a_damaged_state_file_is_refused_and_kept(
    settings: TpmSettings, driver: FakeDriver, content: bytes
) -> None:
    settings.state.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"ak\.json"):
        attester(settings, driver)
    assert settings.state.read_bytes() == content
    assert driver.made == 0


def test_a_state_file_that_cannot_be_written_is_refused(
    settings: TpmSettings, driver: FakeDriver, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="can be written"):
        attester(replace(settings, state=tmp_path / "no" / "such" / "folder"), driver)


@pytest.mark.parametrize("registers", [(), (24,), (-1,)])
def test_registers_that_no_tpm_has_are_refused(
    settings: TpmSettings, driver: FakeDriver, registers: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigurationError, match="TPM registers"):
        attester(replace(settings, registers=registers), driver)


def test_it_says_what_it_is(settings: TpmSettings, driver: FakeDriver) -> None:
    made = attester(settings, driver)
    told = made.describe()
    assert (told.scheme, told.challenge_size) == ("tpm2", 32)
    assert told.identity == driver.tpm.name.hex()
    assert told.details["event log"].endswith("(not there)")
    made.close()
    assert driver.closed


def test_it_asks_to_be_activated_and_answers(settings: TpmSettings, driver: FakeDriver) -> None:
    made = attester(settings, driver)
    request = ActivationRequest.decode(made.activation_request())
    assert request.attestation_key.name == driver.tpm.name
    assert request.endorsement_key.raw == driver.tpm.endorsement_public
    with pytest.raises(DecodeError, match="activation challenge"):
        made.activate(b"nonsense")


class TestDrivers:
    def test_the_templates_are_what_their_names_say(self) -> None:
        require_attestation_key(decode_public(AK_TEMPLATE))
        for template in (SRK_TEMPLATE, *EK_TEMPLATES.values()):
            assert attribute_names(decode_public(template).attributes)[-2:] == (
                "restricted",
                "decrypt",
            )
        assert len(decode_public(EK_TEMPLATES["rsa"]).policy) == 32

    def test_neither_library_nor_tools_is_a_wrong_setting_that_names_both(
        self, settings: TpmSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tpm_device, "has_esys", lambda: False)
        monkeypatch.setattr(tpm_device, "has_tools", lambda: False)
        with pytest.raises(ConfigurationError, match=r"tpm2-pytss .* or tpm2-tools"):
            open_driver(settings)

    def test_tools_are_taken_where_the_library_is_not_there(
        self, settings: TpmSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tpm_device, "has_esys", lambda: False)
        monkeypatch.setattr(tpm_device, "has_tools", lambda: True)
        monkeypatch.setattr(tpm_tools.shutil, "which", lambda _: "/bin/false")
        assert isinstance(open_driver(settings), ToolsDriver)

    def test_a_missing_library_is_told_with_what_to_install(self) -> None:
        if has_esys():
            pytest.skip("tpm2-pytss is installed here")
        with pytest.raises(ConfigurationError, match=r"troth\[tpm\]"):
            EsysDriver("device:/dev/tpmrm0")

    def test_missing_tools_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tpm_tools.shutil, "which", lambda _: None)
        with pytest.raises(ConfigurationError, match="tpm2-tools on the search path"):
            ToolsDriver("device:/dev/tpmrm0")

    def test_what_a_tool_complains_about_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tool = tmp_path / "tpm2"
        tool.write_text("#!/bin/sh\necho 'WARN: x' >&2\necho 'ERROR: no TPM here' >&2\nexit 1\n")
        tool.chmod(0o700)
        monkeypatch.setattr(tpm_tools.shutil, "which", lambda _: str(tool))
        with pytest.raises(UnavailableError, match="tpm2_createprimary on x: no TPM here"):
            ToolsDriver("x").create_attestation_key()

    def test_a_tool_that_hangs_is_given_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tool = tmp_path / "tpm2"
        tool.write_text("#!/bin/sh\nexec sleep 30\n")
        tool.chmod(0o700)
        monkeypatch.setattr(tpm_tools.shutil, "which", lambda _: str(tool))
        monkeypatch.setattr(tpm_tools, "_DEADLINE_SECONDS", 0.05)
        with pytest.raises(UnavailableError, match="timed out"):
            ToolsDriver("x").endorsement_key()

    @pytest.mark.parametrize(
        ("data", "item"),
        [
            (b"\x30\x02ab\0\0\0", b"\x30\x02ab"),
            (b"\x30\x81\x02ab\xff", b"\x30\x81\x02ab"),
            (b"\x30\x82\x00\x02ab", b"\x30\x82\x00\x02ab"),
            (b"\x30\x82\x01\x00ab", b""),
            (b"\xff" * 16, b""),
            (b"\x30\x84\x00\x00\x00\x02ab", b""),
            (b"", b""),
        ],
    )
    def test_a_certificate_ends_before_the_padding_of_its_storage(
        self, data: bytes, item: bytes
    ) -> None:
        assert der_of(data) == item
