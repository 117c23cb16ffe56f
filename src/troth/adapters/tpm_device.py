# SPDX-License-Identifier: Apache-2.0
"""The Attester of a machine with a TPM 2.0.

The attestation key is made once and lies, encrypted by the TPM, in a state file: its public area
is what a Verifier registers. The TPM is reached by tpm2-pytss where that is installed (extra
"tpm"), which keeps the key loaded and is the faster; else by the commands of tpm2-tools.

Whoever may use the attestation key can have any challenge quoted (an oracle), and the quote does
not say who asked. Give the TPM device and the state file to the agent's user alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from troth.adapters.tpm_driver import EkAlgorithm, TpmDriver, WrappedKey
from troth.adapters.tpm_esys import EsysDriver, has_esys
from troth.adapters.tpm_tools import ToolsDriver, has_tools
from troth.errors import ApiMisuseError, ConfigurationError, DecodeError, UnavailableError
from troth.evidence.attester import AttesterDescription
from troth.evidence.tpm2 import MEDIA_TYPE, encode
from troth.evidence.tpm2.activation import ActivationChallenge, ActivationRequest
from troth.evidence.tpm2.scheme import CHALLENGE_SIZE
from troth.formats.tpm.event_log import MAX_EVENT_LOG_BYTES
from troth.formats.tpm.ima_log import IMA_PCR, MAX_IMA_LOG_BYTES
from troth.formats.tpm.pcr_selection import PCRS
from troth.formats.tpm.public import TpmPublic, decode_public

__all__ = ["DEFAULT_REGISTERS", "TpmAttester", "TpmSettings", "open_driver"]

EVENT_LOG: Final = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
IMA_LOG: Final = Path("/sys/kernel/security/ima/binary_runtime_measurements")

DEFAULT_REGISTERS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14)
"""Firmware, boot loader, kernel and the owner's keys; PCR 10 is added where an IMA log is sent."""

_FORMAT: Final = "troth-tpm-ak/1"
_MAX_STATE_BYTES: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmSettings:
    """How to reach a TPM and what to quote.

    Attributes:
        state: file that keeps the attestation key; made if it is not there.
        tcti: "device:/dev/tpmrm0", "swtpm:path=…" or any other that the TPM software stack knows.
        driver: "esys" for tpm2-pytss, "tools" for tpm2-tools, "auto" for the first of them that
            is installed.
        ek: endorsement key; vendors certify the RSA one nearly everywhere.
        bank: bank of the registers.
        registers: which to quote.
        event_log: boot log to send, or None; one that is not there is left out.
        ima_log: IMA log to send, or None; one that is not there is left out.
    """

    state: Path
    tcti: str = "device:/dev/tpmrm0"
    driver: Literal["auto", "esys", "tools"] = "auto"
    ek: EkAlgorithm = "rsa"
    bank: str = "sha256"
    registers: Sequence[int] = DEFAULT_REGISTERS
    event_log: Path | None = EVENT_LOG
    ima_log: Path | None = IMA_LOG


def open_driver(settings: TpmSettings) -> TpmDriver:
    """Return the driver that the settings ask for.

    Raises:
        ConfigurationError: it is not installed, or neither is.
        UnavailableError: the TPM is not there.
    """
    kind = settings.driver
    if kind == "auto":
        kind = "esys" if has_esys() or not has_tools() else "tools"
        if kind == "esys" and not has_esys():
            raise ConfigurationError(
                source="TPM driver",
                accepted='tpm2-pytss (pip install "troth[tpm]") or tpm2-tools; neither is '
                "installed",
            )
    if kind == "esys":
        return EsysDriver(settings.tcti, ek=settings.ek)
    return ToolsDriver(settings.tcti, ek=settings.ek)


class TpmAttester:
    """Makes Evidence of this machine with its TPM; implements the Attester port.

    Args:
        settings: how to reach the TPM and what to quote.
        driver: makes the driver; another one in tests.

    Raises:
        ConfigurationError: no driver is installed, or the state file is damaged.
        UnavailableError: the TPM is not there, or does not make a key.
    """

    scheme = "tpm2"
    media_type = MEDIA_TYPE
    challenge_size = CHALLENGE_SIZE

    def __init__(
        self, settings: TpmSettings, *, driver: Callable[[TpmSettings], TpmDriver] = open_driver
    ) -> None:
        if not settings.registers or any(each not in PCRS for each in settings.registers):
            raise ConfigurationError(
                source="TPM registers",
                value=",".join(map(str, settings.registers)),
                accepted=f"at least one register from 0 to {PCRS[-1]}",
            )
        self._settings = settings
        self._driver = driver(settings)
        self._key = _kept_key(settings.state) or self._new_key()

    @property
    def attestation_key(self) -> TpmPublic:
        """The public area of the attestation key: what a Verifier registers, by its name."""
        return decode_public(self._key.public)

    def attest(self, challenge: bytes) -> bytes:
        """Return Evidence that carries `challenge`.

        Raises:
            ApiMisuseError: it has not 32 octets.
            UnavailableError: the TPM does not answer or does not know its key any more, or a log
                is longer than a Verifier takes.
        """
        if len(challenge) != CHALLENGE_SIZE:
            raise ApiMisuseError(
                f"a TPM challenge has {CHALLENGE_SIZE} octets, not {len(challenge)}"
            )
        settings = self._settings
        has_files = settings.ima_log is not None and settings.ima_log.exists()
        registers = set(settings.registers) | ({IMA_PCR} if has_files else set())
        quoted = self._driver.quote(self._key, challenge, settings.bank, sorted(registers))
        # The IMA log grows; what is read after the quote begins with what was quoted.
        return encode(
            quote=quoted.quote,
            signature=quoted.signature,
            pcr_values=quoted.values,
            attestation_key=self.attestation_key.raw,
            event_log=_log(settings.event_log, MAX_EVENT_LOG_BYTES),
            ima_log=_log(settings.ima_log, MAX_IMA_LOG_BYTES) if has_files else None,
        )

    def activation_request(self) -> bytes:
        """Return what a Verifier needs to challenge this TPM about its attestation key."""
        endorsement = self._driver.endorsement_key()
        return ActivationRequest(
            endorsement_key=decode_public(endorsement.public),
            attestation_key=self.attestation_key,
            certificates=(endorsement.certificate,) if endorsement.certificate else (),
        ).encode()

    def activate(self, challenge: bytes) -> bytes:
        """Return the answer to a Verifier's ActivationChallenge.

        Raises:
            DecodeError: not a challenge.
            UnavailableError: the TPM refuses: it is about another key or another TPM.
        """
        credential = ActivationChallenge.decode(challenge).credential
        return self._driver.activate(self._key, credential)

    def describe(self) -> AttesterDescription:
        """Say what this Attester is."""
        settings = self._settings
        key = self.attestation_key
        return AttesterDescription(
            scheme=self.scheme,
            media_type=self.media_type,
            source=self._driver.source,
            challenge_size=self.challenge_size,
            identity=key.name.hex(),
            details={
                "attestation key": key.thumbprint,
                "registers": f"{settings.bank}:{','.join(map(str, settings.registers))}",
                "event log": _presence(settings.event_log),
                "IMA log": _presence(settings.ima_log),
                "state file": str(settings.state),
            },
        )

    def close(self) -> None:
        """Let the TPM go."""
        self._driver.close()

    def _new_key(self) -> WrappedKey:
        key = self._driver.create_attestation_key()
        decode_public(key.public)
        _keep_key(self._settings.state, key)
        return key


def _kept_key(path: Path) -> WrappedKey | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_STATE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"a readable file ({exc.strerror or exc})"
        ) from exc
    try:
        key = _decoded_key(data)
    except (ValueError, KeyError, TypeError, DecodeError) as exc:
        raise ConfigurationError(
            source=str(path),
            accepted=f"the state file of a TPM's attestation key ({exc}); without the file a new "
            "key is made, which then has to be registered",
        ) from exc
    return key


def _decoded_key(data: bytes) -> WrappedKey:
    value = json.loads(data)
    if value["format"] != _FORMAT:
        raise ValueError("another format")
    key = WrappedKey(bytes.fromhex(value["public"]), bytes.fromhex(value["private"]))
    decode_public(key.public)
    return key


def _keep_key(path: Path, key: WrappedKey) -> None:
    text = json.dumps({"format": _FORMAT, "public": key.public.hex(), "private": key.private.hex()})
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        raise ConfigurationError(
            source=str(path), accepted=f"a file that can be written ({exc.strerror or exc})"
        ) from exc


def _log(path: Path | None, limit: int) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise UnavailableError(
            f"{path}: {exc.strerror or exc}",
            remedy="Let the agent's user read it, or send no such log.",
        ) from exc
    if len(data) > limit:
        raise UnavailableError(
            f"{path} has more than {limit} octets, which no Verifier of ours takes",
            remedy="Narrow the kernel's IMA policy, or send no such log.",
        )
    return data


def _presence(path: Path | None) -> str:
    if path is None:
        return "not sent"
    return str(path) if path.exists() else f"{path} (not there)"
