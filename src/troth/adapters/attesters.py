# SPDX-License-Identifier: Apache-2.0
"""The Attesters of this machine: what was looked for, what was found, and what each would prove.

Theory of operation. `find_attesters` looks at every kind in turn and says for each what is there
or why it cannot be used; nothing is asked for Evidence. `open_attester` gives one of them by its
kind, or with `auto` the first usable one. `auto` never takes the simulator: its Evidence proves
nothing, and whoever wants it says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from troth.adapters.hardware_detection import DetectedHardware, detect_hardware
from troth.adapters.parsec import parsec_socket, ping
from troth.adapters.tpm_device import DEFAULT_REGISTERS, TpmAttester, TpmSettings
from troth.adapters.tpm_esys import has_esys
from troth.adapters.tpm_tools import has_tools
from troth.errors import ConfigurationError, TrothError, UnavailableError
from troth.evidence.attester import Attester, AttesterDescription

__all__ = [
    "AUTO",
    "KINDS",
    "PROOFS",
    "AttesterSettings",
    "FoundAttester",
    "Proof",
    "find_attesters",
    "open_attester",
]

AUTO: Final = "auto"
KINDS: Final = ("tsm", "nsm", "tpm", "simulator")
"""The kinds that can be asked for by name; the order in which `auto` takes them, but for the last."""

_DEFAULT_TCTI: Final = "device:/dev/tpmrm0"


@dataclass(frozen=True, slots=True)
class Proof:
    """What Evidence of a scheme shows, and what it does not, in a sentence each.

    docs/reference/schemes says it in full.
    """

    shows: str
    does_not_show: str


PROOFS: Final = {
    "sev_snp": Proof(
        "that this VM runs in a genuine AMD processor with memory encryption, on which firmware, "
        "and what it was started with",
        "what was loaded after the start, unless the measured image checks that itself",
    ),
    "tdx": Proof(
        "that this VM is a trust domain on a genuine Intel processor, on which firmware, and what "
        "it was started with and measured since",
        "anything about software that measures nothing into the run-time registers",
    ),
    "cca": Proof(
        "that this is a realm on a genuine Arm CCA platform, which firmware the platform runs, and "
        "what the realm was started with and measured since",
        "anything about software that measures nothing into the realm's registers",
    ),
    "nitro": Proof(
        "that this is a Nitro Enclave made from a certain image",
        "anything about the instance beside it; the proof rests on AWS alone",
    ),
    "tpm2": Proof(
        "which firmware, boot loader and kernel this machine started, and with an IMA log which "
        "files it ran, by a key that lives in its TPM",
        "that memory is protected: whoever controls the running kernel controls what it says later",
    ),
    "psa": Proof(
        "which firmware this device runs, in which life-cycle state, by a key of its root of trust",
        "anything about what runs above the firmware",
    ),
}
_SIMULATED: Final = Proof("nothing: its keys are in a file", "that there is any such hardware")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttesterSettings:
    """Where to look.

    Attributes:
        device: the simulator's device file, or None.
        state: file that keeps a TPM's attestation key, or None. It is made when it is first used.
        tcti: how the TPM is reached.
        registers: what the TPM quotes.
        root: where /dev and /sys are looked for; another one in tests.
        parsec: socket of a Parsec service.
    """

    device: Path | None = None
    state: Path | None = None
    tcti: str = _DEFAULT_TCTI
    registers: Sequence[int] = DEFAULT_REGISTERS
    root: Path = Path("/")
    parsec: Path = field(default_factory=parsec_socket)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAttester:
    """One kind of Attester, and what became of looking for it.

    Attributes:
        kind: "tsm", "nsm", "tpm", "parsec" or "simulator".
        source: the device, directory, socket or file.
        scheme: the scheme's one word, "" where it is not known.
        detail: what was found, or what is missing.
        remedy: what would make it usable, or "".
        proof: what its Evidence would show; None where it makes none.
        opens: gives the Attester; None where it cannot be used.
    """

    kind: str
    source: str
    scheme: str
    detail: str
    remedy: str = ""
    proof: Proof | None = None
    opens: Callable[[], Attester] | None = None

    @property
    def usable(self) -> bool:
        """Whether it makes Evidence."""
        return self.opens is not None

    def describe(self) -> AttesterDescription | None:
        """Return what it says of itself; None where it cannot be used.

        Raises:
            UnavailableError: it was found, and does not answer.
        """
        return None if self.opens is None else self.opens().describe()


def find_attesters(settings: AttesterSettings) -> Sequence[FoundAttester]:
    """Look for every kind, the strongest first. Makes no Evidence and no keys."""
    vm, enclave, tpm = detect_hardware(root=settings.root)
    return (
        _hardware("tsm", vm),
        _hardware("nsm", enclave),
        _tpm(settings, tpm),
        _parsec(settings.parsec),
        _simulator(settings.device),
    )


def open_attester(kind: str, settings: AttesterSettings) -> Attester:
    """Return the Attester of this kind, or with `auto` of the first that hardware provides.

    Raises:
        ConfigurationError: there is no such kind, or something that it needs is not said.
        UnavailableError: it is not there, or does not answer.
    """
    if kind != AUTO and kind not in KINDS:
        raise ConfigurationError(
            source="Attester", value=kind, accepted=f"one of {AUTO}, {', '.join(KINDS)}"
        )
    found = {each.kind: each for each in find_attesters(settings)}
    if kind == AUTO:
        chosen = next((found[each] for each in KINDS[:-1] if found[each].usable), None)
        if chosen is None:
            looked = "; ".join(f"{each}: {found[each].detail}" for each in KINDS[:-1])
            raise UnavailableError(
                f"no hardware that makes Evidence ({looked})",
                remedy="troth attest --explain says what each needs",
            )
    else:
        chosen = found[kind]
    if chosen.opens is None:
        raise UnavailableError(f"{chosen.source}: {chosen.detail}", remedy=chosen.remedy)
    return chosen.opens()


def _hardware(kind: str, found: DetectedHardware) -> FoundAttester:
    return FoundAttester(
        kind=kind,
        source=found.source,
        scheme=found.scheme,
        detail=found.detail,
        remedy=found.remedy,
        proof=PROOFS.get(found.scheme),
        opens=found.attester if found.usable else None,
    )


def _tpm(settings: AttesterSettings, found: DetectedHardware) -> FoundAttester:
    # Where a transport is named, the device is its business.
    named = settings.tcti != _DEFAULT_TCTI
    source = settings.tcti if named else found.source
    missing, remedy = "", ""
    if not named and not found.usable:
        missing, remedy = found.detail, found.remedy
    elif not named and not os.access(found.source, os.R_OK | os.W_OK):
        missing = "there, but this user may not use it"
        remedy = "Run as a user that may (often one of the group tss)."
    elif not has_esys() and not has_tools():
        missing = "there, but neither tpm2-pytss nor tpm2-tools is installed"
        remedy = 'pip install "troth[tpm]", or install the package tpm2-tools.'
    elif settings.state is None:
        missing = "there; no file is named to keep its attestation key in"
        remedy = "Name one with --state, or attester.state in the agent's configuration."

    def opens() -> Attester:
        if settings.state is None:
            raise UnavailableError(missing, remedy=remedy)
        return TpmAttester(
            TpmSettings(state=settings.state, tcti=settings.tcti, registers=settings.registers)
        )

    present = named or found.usable
    return FoundAttester(
        kind="tpm",
        source=source,
        scheme="tpm2" if present else "",
        detail=missing or f"TPM; its attestation key is kept in {settings.state}",
        remedy=remedy,
        proof=PROOFS["tpm2"] if present else None,
        opens=None if missing else opens,
    )


def _parsec(path: Path) -> FoundAttester:
    if not path.is_socket():
        return FoundAttester(
            kind="parsec", source=str(path), scheme="", detail="not there: no Parsec service"
        )
    try:
        service = ping(path)
    except TrothError as exc:
        return FoundAttester(
            kind="parsec", source=str(path), scheme="", detail=str(exc), remedy=exc.remedy
        )
    return FoundAttester(
        kind="parsec",
        source=str(path),
        scheme="",
        detail=f"Parsec answers (wire protocol {service.version}); it has no operation that makes "
        "PSA attestation tokens, so that Troth makes no Evidence through it",
    )


def _simulator(device: Path | None) -> FoundAttester:
    from troth.evidence.simulator import from_json  # noqa: PLC0415 - only where it is named

    if device is None:
        return FoundAttester(
            kind="simulator", source="", scheme="", detail="no device file is named", proof=None
        )
    try:
        platform = from_json(device.read_bytes(), source=str(device))
    except OSError as exc:
        return FoundAttester(
            kind="simulator",
            source=str(device),
            scheme="",
            detail=f"the device file cannot be read: {exc.strerror or exc}",
        )
    except TrothError as exc:
        return FoundAttester(
            kind="simulator", source=str(device), scheme="", detail=str(exc), remedy=exc.remedy
        )
    return FoundAttester(
        kind="simulator",
        source=str(device),
        scheme=platform.scheme,
        detail="INSECURE: a simulated platform; only where it is asked for by its kind",
        proof=_SIMULATED,
        opens=lambda: platform,
    )
