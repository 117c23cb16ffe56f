# SPDX-License-Identifier: Apache-2.0
"""Make the vectors beside this file with a real TPM in software (swtpm) and tpm2-tools.

    PYTHONPATH=tests .venv/bin/python tests/vectors/tpm2/make.py

Each run makes other keys, so all files change together. Their private halves end with the TPM.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from support.software_tpm import (
    SHA1,
    SHA256,
    BootLog,
    FileLog,
    selection_of,
    sized,
    u16,
)
from support.swtpm import Swtpm, started_swtpm
from troth.adapters.tpm_device import TpmAttester, TpmSettings
from troth.cli.corim.tpm2 import tpm2_corim
from troth.endorsement.build import AttestKey
from troth.evidence.tpm2 import SCHEME, encode
from troth.formats.keys import VerificationKey
from troth.formats.tpm.event_log import decode_event_log
from troth.formats.tpm.ima_log import decode_ima_log
from troth.formats.tpm.public import decode_public

FOLDER = Path(__file__).parent
CHALLENGE = bytes(range(32))
CLASS = b"troth-vectors"
BANKS = (SHA1, SHA256)


def main() -> None:
    """Make them all."""
    with started_swtpm() as swtpm, tempfile.TemporaryDirectory() as scratch:
        Maker(swtpm, Path(scratch)).make()


class Maker:
    """One machine, from its boot to its last quote."""

    def __init__(self, swtpm: Swtpm, scratch: Path) -> None:
        self.swtpm = swtpm
        self.boot, self.files = BootLog(BANKS), FileLog()
        self.logged = [0, 0]
        self.settings = TpmSettings(
            state=scratch / "ak.json",
            tcti=swtpm.tcti,
            driver="tools",
            registers=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
            event_log=scratch / "boot.log",
            ima_log=scratch / "ima.log",
        )
        self.attester = TpmAttester(self.settings)

    def make(self) -> None:
        self.boot.boot(command="linux /vmlinuz root=/dev/vda1 ro quiet")
        self.extend()
        registers = self.read()
        aggregate = hashlib.sha256(b"".join(registers[pcr] for pcr in range(10))).digest()
        self.files.add("boot_aggregate", b"", digest=aggregate)
        self.files.add("/usr/bin/envoy", b"envoy 1.40")
        self.extend()
        good = self.attester.attest(CHALLENGE)
        self.write("evidence-valid.cbor", good)
        self.write("ak.pub", self.attester.attestation_key.sized())
        self.write("corim-valid.cbor", self.corim(good))
        self.make_bad(good)
        self.boot.add_grub("insmod unknown")
        self.extend()
        self.write("evidence-valid-changed-event.cbor", self.attester.attest(CHALLENGE))
        self.files.add("/opt/unknown", b"unknown")
        self.extend()
        self.write("evidence-valid-unknown-file.cbor", self.attester.attest(CHALLENGE))
        self.make_forged()

    def make_bad(self, good: bytes) -> None:
        evidence = SCHEME.decode(good)
        event_log, ima_log = evidence.event_log, evidence.ima_log
        assert event_log is not None
        assert ima_log is not None
        command = event_log.events[14].digests
        log = event_log.raw
        for digest in command.values():
            log = log.replace(digest, bytes(len(digest)))
        values = bytearray(evidence.pcr_values or b"")
        values[0] ^= 1
        self.bad("signature", good, signature=self.flipped(good))
        self.bad("pcr-value", good, pcr_values=bytes(values))
        self.bad("event-digest", good, event_log=log)
        self.bad("ima-path", good, ima_log=ima_log.raw.replace(b"bin/envoy", b"bin/ENVOY"))
        other = TpmAttester(replace(self.settings, state=self.settings.state.with_name("other")))
        self.bad("other-public-area", good, attestation_key=other.attestation_key.raw)

    def flipped(self, good: bytes) -> bytes:
        signature = bytearray(self.signature(good))
        signature[-1] ^= 1
        return bytes(signature)

    def signature(self, data: bytes) -> bytes:
        signature = SCHEME.decode(data).signature
        head = u16(signature.scheme) + u16(signature.hash.id)
        return head + sized(signature.r.to_bytes(32)) + sized(signature.s.to_bytes(32))

    def bad(self, name: str, good: bytes, **changes: Any) -> None:
        evidence = SCHEME.decode(good)
        assert evidence.attestation_key is not None
        assert evidence.event_log is not None
        assert evidence.ima_log is not None
        parts = {
            "quote": evidence.quote.raw,
            "signature": self.signature(good),
            "pcr_values": evidence.pcr_values or b"",
            "attestation_key": evidence.attestation_key.raw,
            "event_log": evidence.event_log.raw,
            "ima_log": evidence.ima_log.raw,
        }
        self.write(f"evidence-bad-{name}.cbor", encode(**{**parts, **changes}))

    def make_forged(self) -> None:
        """Have the TPM's unrestricted key sign what no TPM ever quoted."""
        run, base = self.swtpm.run, self.swtpm.folder
        run("createprimary", "-C", "o", "-G", "ecc", "-c", "primary.ctx", "-Q")
        attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign"
        scheme = "ecc256:ecdsa-sha256:null"
        run(
            "create",
            *("-C", "primary.ctx", "-G", scheme, "-a", attributes, "-u", "key.pub", "-r", "key"),
        )
        run("load", "-C", "primary.ctx", "-u", "key.pub", "-r", "key", "-c", "key.ctx", "-Q")
        values = bytes(320)
        quote = b"\xffTCG" + u16(0x8018) + sized(bytes(34)) + sized(CHALLENGE)
        quote += bytes(16) + b"\x01" + bytes(8) + selection_of({SHA256: range(10)})
        quote += sized(hashlib.sha256(values).digest())
        (base / "forged").write_bytes(quote)
        run("sign", "-c", "key.ctx", "-g", "sha256", "-o", "forged.sig", "forged")
        public = (base / "key.pub").read_bytes()
        self.write("unrestricted.pub", public)
        self.write(
            "evidence-bad-unrestricted-key.cbor",
            encode(
                quote=quote,
                signature=(base / "forged.sig").read_bytes(),
                pcr_values=values,
                attestation_key=decode_public(public).raw,
            ),
        )

    def extend(self) -> None:
        """Do what firmware and kernel do with what was logged since the last time."""
        assert self.settings.event_log is not None
        assert self.settings.ima_log is not None
        events = decode_event_log(self.boot.data).events
        for event in events[self.logged[0] :]:
            if event.is_extended:
                self.run_extend(event.pcr, event.digests[SHA1], event.digests[SHA256])
        entries = decode_ima_log(self.files.binary).entries
        for entry in entries[self.logged[1] :]:
            data = entry.template_data
            sha1 = hashlib.sha1(data, usedforsecurity=False).digest()
            self.run_extend(10, sha1, hashlib.sha256(data).digest())
        self.logged = [len(events), len(entries)]
        self.settings.event_log.write_bytes(self.boot.data)
        self.settings.ima_log.write_bytes(self.files.binary)

    def run_extend(self, pcr: int, sha1: bytes, sha256: bytes) -> None:
        self.swtpm.run("pcrextend", f"{pcr}:sha1={sha1.hex()},sha256={sha256.hex()}")

    def read(self) -> dict[int, bytes]:
        evidence = SCHEME.decode(self.attester.attest(CHALLENGE))
        return evidence.quoted.selection.split(evidence.pcr_values or b"")["sha-256"]

    def corim(self, evidence: bytes) -> bytes:
        key = self.attester.attestation_key
        return tpm2_corim(
            SCHEME.decode(evidence),
            corim_id="troth-tpm2-vectors",
            class_id=CLASS,
            registers=None,
            leave_out=(),
            keys=[AttestKey(instance_id=key.name, key=VerificationKey(key.public_key()))],
            vendor="Troth",
            model="swtpm",
            validity=None,
        ).encode()

    def write(self, name: str, data: bytes) -> None:
        (FOLDER / name).write_bytes(data)
        sys.stdout.write(f"{name} {len(data)}\n")


if __name__ == "__main__":
    main()
