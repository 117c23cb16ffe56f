# SPDX-License-Identifier: Apache-2.0
"""Appraisal of TPM quotes: what is described, and which event or file is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from support.appraisal import IDENTITY, NOW, store_of
from support.software_tpm import SHA1, SHA256, SHA384, BootLog, FileLog, SoftwareTpm
from troth.cli.corim.tpm2 import tpm2_corim
from troth.endorsement.build import AttestKey, NamedDigest, measured_corim
from troth.evidence.tpm2 import SCHEME
from troth.formats.ar4si import TrustTier
from troth.formats.corim.corim import Corim
from troth.verifier.finding import Finding
from troth.verifier.result import AssuranceTier, AttestationResult
from troth.verifier.verifier import Verifier

CHALLENGE = bytes(range(32))
CLASS = b"acme-host"
PCRS = range(10)


class Host:
    """A machine that booted, with its log and files."""

    def __init__(self, *, files: Sequence[str] | None = None, **boot: Any) -> None:
        self.tpm = SoftwareTpm()
        self.log = BootLog(tpm=self.tpm)
        self.log.boot(**boot)
        self.files = FileLog(tpm=self.tpm)
        if files is not None:
            self.files.add_aggregate(self.tpm)
            for path in files:
                self.files.add(path, path.encode())

    def evidence(
        self, *, log: bool = True, pcrs: Sequence[int] = PCRS, files: bool = False
    ) -> bytes:
        chosen = [*pcrs, 10] if files else [*pcrs]
        return self.tpm.evidence(
            CHALLENGE,
            {SHA256: chosen},
            event_log=self.log.data if log else None,
            ima_log=self.files.binary if files else None,
        )

    def key(self) -> AttestKey:
        return AttestKey(instance_id=self.tpm.name, key=self.tpm.pem)

    def corim(
        self,
        *,
        leave_out: Sequence[str] = (),
        registers: Sequence[int] | None = None,
        corim_id: str = "good",
        files: bool = False,
        log: bool = True,
    ) -> Corim:
        """Return what an Endorser would say of the machine as it is now."""
        return tpm2_corim(
            SCHEME.decode(self.evidence(files=files, log=log)),
            corim_id=corim_id,
            class_id=CLASS,
            registers=registers,
            leave_out=leave_out,
            keys=[self.key()],
            vendor="",
            model="",
            validity=None,
        )


def appraise(evidence: bytes, *corims: Corim) -> AttestationResult:
    return Verifier(identity=IDENTITY, endorsements=store_of(*corims)).appraise(
        evidence, now=NOW, challenge=CHALLENGE
    )


def vector(result: AttestationResult) -> Any:
    return result.submods["tpm2"].vector


def findings(result: AttestationResult) -> Mapping[str, Finding]:
    return {finding.claim: finding for finding in result.submods["tpm2"].findings}


def keys_only(host: Host) -> Corim:
    return measured_corim(corim_id="keys", scheme="tpm2", class_id=CLASS, keys=[host.key()])


def test_a_machine_as_described_is_affirmed_and_measured() -> None:
    host = Host()
    result = appraise(host.evidence(), host.corim())
    assert result.status is TrustTier.AFFIRMING
    assert result.tier is AssuranceTier.MEASURED
    assert result.submods["tpm2"].findings == ()
    claims = vector(result)
    assert (claims.hardware, claims.instance_identity) == (2, 2)
    assert (claims.executables, claims.configuration) == (3, 2)
    assert claims.file_system is None
    assert len(result.submods["tpm2"].matched) == 1 + 16


def test_another_boot_of_the_same_state_is_affirmed_too() -> None:
    endorsed, other = Host(), Host()
    other.tpm.reset_count += 1
    assert appraise(other.evidence(log=False), endorsed.corim(leave_out=["events"])).status is (
        TrustTier.AFFIRMING
    )


def test_without_reference_values_nothing_is_affirmed() -> None:
    host = Host()
    result = appraise(host.evidence(), keys_only(host))
    assert result.status is TrustTier.WARNING
    assert result.tier is AssuranceTier.IDENTIFIED
    assert vector(result).executables == 33
    assert vector(result).configuration == 3
    assert "none provisioned" in findings(result)["pcrs"].actual


class TestRegisters:
    def test_a_changed_register_is_named_with_what_was_expected_and_found(self) -> None:
        good = Host()
        changed = Host(kernel=b"another kernel")
        result = appraise(changed.evidence(log=False), good.corim(leave_out=["events"]))
        assert result.status is TrustTier.WARNING
        assert vector(result).executables == 33
        assert vector(result).configuration == 2
        (finding,) = result.submods["tpm2"].findings
        assert finding.claim == "PCR 9 (files that the boot loader read)"
        assert good.tpm.registers[SHA256][9].hex() in finding.expected
        assert changed.tpm.registers[SHA256][9].hex() in finding.actual
        assert finding.rule == "Reference Value good/good:state#0 (file-0.corim)"

    def test_a_changed_register_with_configuration_is_no_unknown_code(self) -> None:
        good, changed = Host(), Host()
        changed.tpm.measure(1, b"setup was changed")
        result = appraise(changed.evidence(log=False), good.corim(leave_out=["events"]))
        assert vector(result).executables == 3
        assert vector(result).configuration == 32
        assert list(findings(result)) == ["PCR 1 (firmware configuration)"]
        assert result.tier is AssuranceTier.IDENTIFIED

    def test_every_changed_register_is_told(self) -> None:
        good, changed = Host(), Host(kernel=b"x", command="linux /vmlinuz init=/bin/sh")
        result = appraise(changed.evidence(log=False), good.corim(leave_out=["events"]))
        assert list(findings(result)) == [
            "PCR 8 (commands of the boot loader)",
            "PCR 9 (files that the boot loader read)",
        ]

    def test_a_described_register_that_was_not_quoted_is_not_affirmed(self) -> None:
        host = Host()
        result = appraise(host.evidence(pcrs=range(9)), host.corim(leave_out=["events"]))
        assert vector(result).executables == 33
        finding = findings(result)["PCR 9 (files that the boot loader read)"]
        assert finding.actual == "not quoted"
        assert finding.remedy == "Have the node quote this register as well."

    def test_more_registers_than_described_may_be_quoted(self) -> None:
        host = Host()
        corim = host.corim(registers=[4, 9], leave_out=["events"])
        result = appraise(host.evidence(log=False), corim)
        assert vector(result).executables == 3
        assert vector(result).configuration is None

    def test_registers_of_configuration_alone_do_not_affirm_code(self) -> None:
        host = Host()
        result = appraise(host.evidence(log=False), host.corim(registers=[7], leave_out=["events"]))
        assert vector(result).executables == 33
        assert vector(result).configuration == 2
        assert "values for PCR 7 only" in findings(result)["pcrs"].actual

    def test_a_sha_1_register_never_matches(self) -> None:
        tpm = SoftwareTpm(banks=(SHA1, SHA256))
        key = AttestKey(instance_id=tpm.name, key=tpm.pem)
        corim = measured_corim(
            corim_id="c", scheme="tpm2", class_id=CLASS, registers={4: [bytes(32)]}, keys=[key]
        )
        strong = tpm.evidence(CHALLENGE, {SHA256: [4]})
        weak = tpm.evidence(CHALLENGE, {SHA1: [4]})
        assert vector(appraise(strong, corim)).executables == 3
        assert vector(appraise(weak, corim)).executables == 33

    def test_alternatives_are_not_mixed(self) -> None:
        one, two = Host(), Host(kernel=b"two", command="linux /two")
        corims = [one.corim(leave_out=["events"]), two.corim(leave_out=["events"], corim_id="two")]
        assert appraise(two.evidence(), *corims).status is TrustTier.AFFIRMING
        mixed = Host(kernel=b"two")
        result = appraise(mixed.evidence(log=False), *corims)
        assert vector(result).executables == 33
        assert len(findings(result)) == 1

    def test_a_name_of_a_register_may_be_text(self) -> None:
        host = Host()
        corim = measured_corim(
            corim_id="c",
            scheme="tpm2",
            class_id=CLASS,
            registers={"9": [host.tpm.registers[SHA256][9]]},
            keys=[host.key()],
        )
        assert vector(appraise(host.evidence(log=False), corim)).executables == 3

    @pytest.mark.parametrize("key", ["tpm2.event.99", "tpm2.event.x", "something"])
    def test_a_value_that_nobody_can_compare_never_matches(self, key: str) -> None:
        host = Host()
        quoted = SCHEME.decode(host.evidence(log=False)).quoted.digest
        corim = measured_corim(
            corim_id="c",
            scheme="tpm2",
            class_id=CLASS,
            registers={9: [host.tpm.registers[SHA256][9]]},
            listed=[NamedDigest(key=key, digest=quoted)],
            keys=[host.key()],
        )
        result = appraise(host.evidence(log=False), corim)
        assert vector(result).executables == 33
        assert findings(result)[key].remedy == "Correct the CoRIM."

    def test_values_of_another_class_say_nothing(self) -> None:
        host = Host()
        other = measured_corim(
            corim_id="other",
            scheme="tpm2",
            class_id=b"another class",
            registers={9: [host.tpm.registers[SHA256][9]]},
        )
        result = appraise(host.evidence(log=False), keys_only(host), other)
        assert vector(result).executables == 33

    def test_the_digest_over_all_quoted_registers_may_be_described(self) -> None:
        host = Host()
        digest = SCHEME.decode(host.evidence(log=False)).quoted.digest
        corim = measured_corim(
            corim_id="c",
            scheme="tpm2",
            class_id=CLASS,
            digests={"tpm2.pcr-digest": [digest]},
            keys=[host.key()],
        )
        assert vector(appraise(host.evidence(log=False), corim)).executables == 3
        changed = Host(kernel=b"x")
        result = appraise(changed.evidence(log=False), corim)
        assert vector(result).executables == 33
        assert "pcr-digest" in findings(result)


class TestEvents:
    def test_the_event_that_changed_a_register_is_told(self) -> None:
        good = Host(command="linux /vmlinuz ro quiet")
        changed = Host(command="linux /vmlinuz ro quiet init=/bin/sh")
        result = appraise(changed.evidence(), good.corim())
        found = findings(result)
        register = found["PCR 8 (commands of the boot loader)"]
        told = "event 14 EV_IPL grub_cmd: linux /vmlinuz ro quiet init=/bin/sh"
        assert f"{changed.tpm.registers[SHA256][8].hex()}: {told} differs" in register.actual
        event = found["PCR 8: event 14"]
        assert event.expected.startswith("EV_IPL grub_cmd: linux /vmlinuz ro quiet, sha-256:")
        assert event.actual.startswith(f"{told}, sha-256:")
        assert len(found) == 2

    def test_an_added_event_is_told_as_added(self) -> None:
        good, changed = Host(), Host()
        changed.log.add_grub("insmod rootkit")
        found = findings(appraise(changed.evidence(), good.corim()))
        assert "event 17 EV_IPL grub_cmd: insmod rootkit was added" in (
            found["PCR 8 (commands of the boot loader)"].actual
        )
        assert found["PCR 8: event 17"].expected == "no further event"

    def test_a_missing_event_is_told_as_missing(self) -> None:
        good, changed = Host(), Host()
        good.log.add_file("/initrd.img", b"initrd")
        found = findings(appraise(changed.evidence(), good.corim()))
        assert "an event is missing: EV_IPL /initrd.img" in (
            found["PCR 9 (files that the boot loader read)"].actual
        )
        assert found["PCR 9"].actual == "no such event"

    def test_events_may_stand_without_the_registers_final_values(self) -> None:
        good = Host()
        events = [
            NamedDigest(key=f"tpm2.event.{event.pcr}", digest=event.digests[SHA256])
            for event in (SCHEME.decode(good.evidence()).event_log or pytest.fail("no log")).events
            if event.pcr in (4, 9) and event.is_extended
        ]
        corim = measured_corim(
            corim_id="c", scheme="tpm2", class_id=CLASS, listed=events, keys=[good.key()]
        )
        assert vector(appraise(good.evidence(), corim)).executables == 3
        changed = Host(kernel=b"x")
        result = appraise(changed.evidence(), corim)
        assert vector(result).executables == 33
        assert list(findings(result)) == ["PCR 9: event 15"]

    def test_described_events_need_a_log(self) -> None:
        host = Host()
        result = appraise(host.evidence(log=False), host.corim())
        assert vector(result).executables == 33
        assert "no event log that leads to" in findings(result)["PCR 9 events"].actual

    def test_an_event_in_another_order_is_another_event(self) -> None:
        good, changed = Host(), Host()
        for host, order in ((good, "ab"), (changed, "ba")):
            for name in order:
                host.log.add_grub(f"insmod {name}")
        found = findings(appraise(changed.evidence(), good.corim()))
        assert [claim for claim in found if "event" in claim] == [
            "PCR 8: event 17",
            "PCR 8: event 18",
        ]

    def test_many_differing_events_are_told_up_to_a_limit(self) -> None:
        good, changed = Host(), Host()
        for number in range(40):
            changed.log.add_grub(f"insmod {number}")
        found = findings(appraise(changed.evidence(), good.corim()))
        assert found["PCR 8 events"].actual == "24 more differ"
        assert len(found) == 1 + 16 + 1

    def test_with_final_values_alone_an_event_on_top_is_found(self) -> None:
        good, changed = Host(), Host()
        changed.log.add_grub("insmod one")
        changed.log.add_grub("insmod two")
        found = findings(appraise(changed.evidence(), good.corim(leave_out=["events"])))
        actual = found["PCR 8 (commands of the boot loader)"].actual
        assert "event 17 EV_IPL grub_cmd: insmod one came on top of it, and 1 after it" in actual

    def test_with_final_values_alone_an_event_in_between_is_found(self) -> None:
        good, changed = Host(), Host()
        changed.log.add_grub("insmod rootkit")
        for host in (good, changed):
            host.log.add_grub("boot")
        found = findings(appraise(changed.evidence(), good.corim(leave_out=["events"])))
        actual = found["PCR 8 (commands of the boot loader)"].actual
        assert "event 17 EV_IPL grub_cmd: insmod rootkit was added" in actual

    def test_with_final_values_alone_a_changed_event_is_among_those_listed(self) -> None:
        good, changed = Host(), Host(command="linux /vmlinuz single")
        found = findings(appraise(changed.evidence(), good.corim(leave_out=["events"])))
        finding = found["PCR 8 (commands of the boot loader)"]
        assert "its events are: event 14 EV_IPL grub_cmd: linux /vmlinuz single" in finding.actual
        assert "troth corim create --event-log" in finding.remedy

    def test_digests_in_the_log_that_were_not_quoted_prove_nothing(self) -> None:
        # The log has the right SHA-384 digests beside the wrong SHA-256 ones that were quoted.
        tpm = SoftwareTpm()
        log = BootLog(banks=(SHA256, SHA384), tpm=tpm)
        log.add(9, 0x0D, b"bad kernel")
        good = BootLog(banks=(SHA256, SHA384))
        good.add(9, 0x0D, b"good kernel")
        wanted = SCHEME.decode(tpm.evidence(CHALLENGE, event_log=good.data)).event_log
        mine = SCHEME.decode(tpm.evidence(CHALLENGE, event_log=log.data)).event_log
        assert wanted is not None
        assert mine is not None
        forged = log.data.replace(mine.events[1].digests[SHA384], wanted.events[1].digests[SHA384])
        corim = measured_corim(
            corim_id="c",
            scheme="tpm2",
            class_id=CLASS,
            listed=[NamedDigest(key="tpm2.event.9", digest=wanted.events[1].digests[SHA384])],
            keys=[AttestKey(instance_id=tpm.name, key=tpm.pem)],
        )
        data = tpm.evidence(CHALLENGE, {SHA256: [9]}, event_log=forged)
        assert vector(appraise(data, corim)).executables == 33


class TestConfiguration:
    def test_secure_boot_off_is_a_warning_where_nobody_described_it(self) -> None:
        host = Host(secure=False)
        result = appraise(host.evidence(), host.corim(registers=[4, 8, 9]))
        assert vector(result).executables == 3
        assert vector(result).configuration == 32
        assert result.status is TrustTier.WARNING
        assert findings(result)["event-log.secure-boot"].actual == "off"

    def test_secure_boot_off_is_fine_where_it_is_described_so(self) -> None:
        host = Host(secure=False)
        result = appraise(host.evidence(), host.corim())
        assert vector(result).configuration == 2
        assert result.status is TrustTier.AFFIRMING

    def test_secure_boot_on_is_good_though_nobody_described_it(self) -> None:
        host = Host()
        result = appraise(host.evidence(), host.corim(registers=[4, 8, 9]))
        assert vector(result).configuration == 3
        assert result.tier is AssuranceTier.MEASURED

    def test_a_debugger_in_firmware_is_contraindicated(self) -> None:
        host = Host()
        host.log.add(7, 0x80000007, b"UEFI Debug Mode")
        result = appraise(host.evidence(), host.corim(registers=[4, 8, 9]))
        assert vector(result).configuration == 96
        assert result.status is TrustTier.CONTRAINDICATED
        assert result.tier is AssuranceTier.REGISTERED

    def test_another_secure_boot_policy_is_a_warning_with_its_event(self) -> None:
        good, changed = Host(), Host()
        changed.log.add_variable("db", b"somebody's certificate", kind=0x800000E0)
        result = appraise(changed.evidence(), good.corim())
        assert vector(result).executables == 3
        assert vector(result).configuration == 32
        assert "EV_EFI_VARIABLE_AUTHORITY db = 22 octets was added" in (
            findings(result)["PCR 7 (Secure Boot policy)"].actual
        )


class TestFiles:
    FILES = ("/usr/bin/envoy", "/usr/bin/troth")

    def test_described_files_affirm_what_runs(self) -> None:
        host = Host(files=self.FILES)
        result = appraise(host.evidence(files=True), host.corim(files=True))
        assert vector(result).file_system == 2
        assert vector(result).executables == 2
        assert result.status is TrustTier.AFFIRMING

    def test_an_unknown_file_is_told_by_path_and_digest(self) -> None:
        good = Host(files=self.FILES)
        changed = Host(files=(*self.FILES, "/opt/miner"))
        result = appraise(changed.evidence(files=True), good.corim(files=True))
        assert vector(result).file_system == 32
        assert vector(result).executables == 3
        (finding,) = result.submods["tpm2"].findings
        assert finding.claim == "ima-log[3] /opt/miner"
        assert finding.actual.endswith(": not described")

    def test_a_described_content_at_another_path_is_unknown_unless_any_will_do(self) -> None:
        host = Host(files=self.FILES)
        digests = [
            each.digest
            for each in (
                SCHEME.decode(host.evidence(files=True)).ima_log or pytest.fail("no log")
            ).entries[1:]
        ]
        for name, expected in (("/elsewhere", 32), ("", 2)):
            corim = measured_corim(
                corim_id="files",
                scheme="tpm2",
                class_id=CLASS,
                listed=[NamedDigest(key="tpm2.file", digest=each, name=name) for each in digests],
            )
            boot = host.corim(leave_out=["files"])
            result = appraise(host.evidence(files=True), boot, corim)
            assert vector(result).file_system == expected

    def test_unknown_files_are_told_up_to_a_limit(self) -> None:
        good = Host(files=self.FILES)
        changed = Host(files=[*self.FILES, *(f"/opt/{number}" for number in range(30))])
        result = appraise(changed.evidence(files=True), good.corim(files=True))
        found = result.submods["tpm2"].findings
        assert len(found) == 21
        assert found[-1].actual == "10 more unknown files, 30 altogether"

    def test_a_violation_is_an_unknown_file(self) -> None:
        good, changed = Host(files=self.FILES), Host(files=self.FILES)
        changed.files.add(self.FILES[0], self.FILES[0].encode(), violation=True)
        result = appraise(changed.evidence(files=True), good.corim(files=True))
        assert vector(result).file_system == 32
        assert "a violation" in result.submods["tpm2"].findings[0].actual

    def test_leaving_the_log_out_is_no_way_around_described_files(self) -> None:
        host = Host(files=self.FILES)
        result = appraise(host.evidence(), host.corim(files=True))
        assert vector(result).file_system == 32
        assert findings(result)["ima-log"].actual == "none was sent"

    def test_files_that_nobody_described_are_a_note(self) -> None:
        host = Host(files=self.FILES)
        result = appraise(host.evidence(files=True), host.corim(leave_out=["files"]))
        assert vector(result).file_system is None
        assert findings(result)["ima-log"].severity == "note"
        assert result.status is TrustTier.AFFIRMING

    def test_a_log_that_does_not_belong_to_the_boot_is_a_warning(self) -> None:
        host = Host()
        host.files.add("boot_aggregate", b"", digest=bytes(32))
        result = appraise(host.evidence(files=True), host.corim())
        assert vector(result).file_system == 32
        assert result.status is TrustTier.WARNING
        assert "ima-log.boot-aggregate-matches" in findings(result)


def test_the_same_claims_give_the_same_verdict_from_the_cache() -> None:
    from troth.verifier.verdict_cache import VerdictCache  # noqa: PLC0415 - this test alone

    host, cache = Host(files=("/bin/sh",)), VerdictCache()
    endorsements = store_of(host.corim(files=True))
    verifier = Verifier(identity=IDENTITY, endorsements=endorsements, cache=cache)
    for number in range(3):
        challenge = bytes([number]) * 32
        data = host.tpm.evidence(
            challenge,
            {SHA256: range(11)},
            event_log=host.log.data,
            ima_log=host.files.ascii,
        )
        assert verifier.appraise(data, now=NOW, challenge=challenge).status is TrustTier.AFFIRMING
    assert (cache.hits, cache.misses) == (2, 1)
    host.files.add("/opt/miner", b"x")
    changed = host.tpm.evidence(CHALLENGE, {SHA256: range(11)}, ima_log=host.files.ascii)
    assert verifier.appraise(changed, now=NOW, challenge=CHALLENGE).status is TrustTier.WARNING
