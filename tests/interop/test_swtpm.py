# SPDX-License-Identifier: Apache-2.0
"""The whole life of a TPM's Evidence, with a TPM that is not ours: swtpm.

Endorsement key → attestation key → credential → activation → registration → quote → verification →
appraisal, by both drivers; then a register is extended, and the verdict says which.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from support.appraisal import IDENTITY
from support.cli import run_cli
from support.software_tpm import SHA1, SHA256, BootLog, FileLog
from support.swtpm import Swtpm, started_swtpm
from troth.adapters.tpm_device import TpmAttester, TpmSettings
from troth.adapters.tpm_esys import has_esys
from troth.cli.corim.tpm2 import tpm2_corim
from troth.endorsement.build import AttestKey
from troth.endorsement.store import EndorsementStore
from troth.errors import BindingError, ChainError, SignatureError, UnavailableError
from troth.evidence.context import VerificationContext
from troth.evidence.tpm2 import SCHEME
from troth.evidence.tpm2.activation import ActivationRequest, CredentialActivation
from troth.formats.ar4si import TrustTier
from troth.formats.keys import VerificationKey
from troth.formats.tpm.event_log import decode_event_log
from troth.formats.tpm.ima_log import decode_ima_log
from troth.verifier.result import AssuranceTier, AttestationResult
from troth.verifier.verifier import Verifier

CLASS = b"swtpm-host"


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def swtpm() -> Iterator[Swtpm]:
    with started_swtpm() as tpm:
        yield tpm


@pytest.fixture(params=["tools", "esys"])
def settings(request: pytest.FixtureRequest, swtpm: Swtpm, tmp_path: Path) -> TpmSettings:
    if request.param == "esys" and not has_esys():
        pytest.skip('tpm2-pytss is not installed (pip install "troth[tpm]")')
    return TpmSettings(
        state=tmp_path / "ak.json",
        tcti=swtpm.tcti,
        driver=request.param,
        registers=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
        event_log=None,
        ima_log=None,
    )


@pytest.fixture
def attester(settings: TpmSettings) -> Iterator[TpmAttester]:
    made = TpmAttester(settings)
    yield made
    made.close()


class Anchors:
    def __init__(self, *attesters: TpmAttester, roots: Sequence[x509.Certificate] = ()) -> None:
        self._keys = {
            each.attestation_key.name: VerificationKey(each.attestation_key.public_key())
            for each in attesters
        }
        self._roots = roots

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        del scheme, implementation_id
        found = self._keys.get(instance_id)
        return [found] if found else []

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        del scheme
        return self._roots


def extend(swtpm: Swtpm, pcr: int, event: Any) -> None:
    digests = f"sha1={event.digests[SHA1].hex()},sha256={event.digests[SHA256].hex()}"
    swtpm.run("pcrextend", f"{pcr}:{digests}")


def boot(swtpm: Swtpm, log: BootLog, *, already: int = 0) -> None:
    """Extend the TPM by the events of the log, as firmware would have."""
    for event in decode_event_log(log.data).events[already:]:
        if event.is_extended:
            extend(swtpm, event.pcr, event)


def corim_of(attester: TpmAttester, evidence: bytes, corim_id: str) -> Any:
    key = attester.attestation_key
    return tpm2_corim(
        SCHEME.decode(evidence),
        corim_id=corim_id,
        class_id=CLASS,
        registers=None,
        leave_out=(),
        keys=[AttestKey(instance_id=key.name, key=VerificationKey(key.public_key()))],
        vendor="",
        model="",
        validity=None,
    )


def appraise(evidence: bytes, challenge: bytes, *corims: Any) -> AttestationResult:
    store = EndorsementStore()
    for corim in corims:
        store.provision(corim, now=now(), source="test")
    return Verifier(identity=IDENTITY, endorsements=store).appraise(
        evidence, now=now(), challenge=challenge
    )


@pytest.mark.parametrize("ek", ["rsa", "ecc"])
def test_a_tpm_proves_that_its_attestation_key_lives_in_it(
    swtpm: Swtpm, settings: TpmSettings, ek: Any
) -> None:
    attester = TpmAttester(replace(settings, ek=ek))
    try:
        request = ActivationRequest.decode(attester.activation_request())
        assert bool(request.certificates) is (ek == "rsa")
        anchors: Any = Anchors(roots=swtpm.roots)
        if ek == "ecc":  # swtpm certifies its RSA key (and one on P-384); this one is registered
            endorsement = request.endorsement_key
            anchors._keys[endorsement.name] = VerificationKey(endorsement.public_key())
        activation = CredentialActivation.begin(
            request,
            trust_anchors=anchors,
            context=VerificationContext(now=now()),
            random=os.urandom,
        )
        answer = attester.activate(activation.challenge.encode())
        proved = activation.complete(answer, now=now())
        assert proved.attestation_key.name == attester.attestation_key.name
    finally:
        attester.close()


def test_a_tpm_does_not_answer_for_a_key_that_does_not_live_in_it(
    swtpm: Swtpm, settings: TpmSettings, tmp_path: Path
) -> None:
    attester, other = (
        TpmAttester(replace(settings, state=tmp_path / name)) for name in ("one", "two")
    )
    try:
        request = ActivationRequest.decode(attester.activation_request())
        forged = replace(request, attestation_key=other.attestation_key)
        activation = CredentialActivation.begin(
            forged,
            trust_anchors=Anchors(roots=swtpm.roots),
            context=VerificationContext(now=now()),
            random=os.urandom,
        )
        with pytest.raises(UnavailableError):
            attester.activate(activation.challenge.encode())
    finally:
        attester.close()
        other.close()


def test_an_endorsement_certificate_of_another_authority_is_refused(
    swtpm: Swtpm, attester: TpmAttester
) -> None:
    del swtpm
    request = ActivationRequest.decode(attester.activation_request())
    with pytest.raises(ChainError, match="no root certificate"):
        CredentialActivation.begin(
            request,
            trust_anchors=Anchors(),
            context=VerificationContext(now=now()),
            random=os.urandom,
        )


def test_the_key_in_the_state_file_is_the_same_after_a_restart(
    settings: TpmSettings, attester: TpmAttester
) -> None:
    attester.close()
    again = TpmAttester(settings)
    try:
        assert again.attestation_key.name == attester.attestation_key.name
        assert settings.state.stat().st_mode & 0o777 == 0o600
        challenge = os.urandom(32)
        verified = SCHEME.verify(
            SCHEME.decode(again.attest(challenge)),
            trust_anchors=Anchors(again),
            freshness=challenge,
        )
        assert verified.instance_id == again.attestation_key.name
    finally:
        again.close()


def test_a_quote_is_good_for_its_challenge_and_its_key_only(attester: TpmAttester) -> None:
    evidence = SCHEME.decode(attester.attest(bytes(32)))
    with pytest.raises(SignatureError, match="no trust anchor"):
        SCHEME.verify(evidence, trust_anchors=Anchors(), freshness=bytes(32))
    sessions = {
        SCHEME.verify(
            SCHEME.decode(attester.attest(challenge)),
            trust_anchors=Anchors(attester),
            freshness=challenge,
        ).boot_session
        for challenge in (os.urandom(32), os.urandom(32))
    }
    assert len(sessions) == 1


def test_a_measured_boot_is_affirmed_and_one_more_event_is_told(
    swtpm: Swtpm, settings: TpmSettings, tmp_path: Path
) -> None:
    # What ran before in this module has left its mark in the registers: a new life.
    with started_swtpm() as fresh:
        path = tmp_path / "binary_bios_measurements"
        log = BootLog(banks=(SHA1, SHA256))
        log.boot(command="linux /vmlinuz root=/dev/sda1 ro quiet")
        path.write_bytes(log.data)
        boot(fresh, log)
        chosen = replace(settings, tcti=fresh.tcti, event_log=path, state=tmp_path / "fresh.json")
        attester = TpmAttester(chosen)
        try:
            challenge = os.urandom(32)
            evidence = attester.attest(challenge)
            corim = corim_of(attester, evidence, "good")
            good = appraise(evidence, challenge, corim)
            assert good.status is TrustTier.AFFIRMING
            assert good.tier is AssuranceTier.MEASURED
            assert good.findings == ()

            attester.close()
            before = len(decode_event_log(log.data).events)
            log.add_grub("insmod rootkit")
            path.write_bytes(log.data)
            boot(fresh, log, already=before)
            challenge = os.urandom(32)
            attester = TpmAttester(chosen)
            changed = appraise(attester.attest(challenge), challenge, corim)
            assert changed.status is TrustTier.WARNING
            told = {finding.claim: finding for finding in changed.findings}
            assert list(told) == ["PCR 8 (commands of the boot loader)", "PCR 8: event 17"]
            assert "event 17 EV_IPL grub_cmd: insmod rootkit" in told["PCR 8: event 17"].actual

            attester.close()
            fresh.run("pcrextend", f"4:sha256={'ab' * 32}")
            attester = TpmAttester(chosen)
            challenge = os.urandom(32)
            with pytest.raises(BindingError, match="does not lead to the quoted PCR 4"):
                appraise(attester.attest(challenge), challenge, corim)
        finally:
            attester.close()
    assert swtpm.process.poll() is None


def test_files_that_the_kernel_measured_are_appraised(
    settings: TpmSettings, tmp_path: Path
) -> None:
    with started_swtpm() as fresh:
        files = FileLog()
        files.add("/usr/bin/envoy", b"envoy")
        (tmp_path / "ima").write_bytes(files.binary)
        for entry in decode_ima_log(files.binary).entries:
            sha1 = hashlib.sha1(entry.template_data, usedforsecurity=False).hexdigest()
            sha256 = hashlib.sha256(entry.template_data).hexdigest()
            fresh.run("pcrextend", f"10:sha1={sha1},sha256={sha256}")
        chosen = replace(
            settings, tcti=fresh.tcti, ima_log=tmp_path / "ima", state=tmp_path / "fresh.json"
        )
        attester = TpmAttester(chosen)
        try:
            challenge = os.urandom(32)
            verified = SCHEME.verify(
                SCHEME.decode(attester.attest(challenge)),
                trust_anchors=Anchors(attester),
                freshness=challenge,
            )
            assert [each.path for each in verified.measured.files or ()] == ["/usr/bin/envoy"]
        finally:
            attester.close()


def test_the_files_of_tpm2_tools_are_verified_as_they_are(
    swtpm: Swtpm, capsys: pytest.CaptureFixture[str]
) -> None:
    run, base = swtpm.run, swtpm.folder
    run("createprimary", "-C", "o", "-G", "ecc", "-c", "primary.ctx", "-Q")
    for kind, scheme in (("ecc", "ecdsa"), ("rsa", "rsassa"), ("rsa", "rsapss")):
        run("createek", "-G", "rsa", "-c", "ek.ctx")
        run(
            "createak",
            *("-C", "ek.ctx", "-c", "ak.ctx", "-G", kind, "-g", "sha256", "-s", scheme),
            *("-u", "ak.pub", "-n", "ak.name"),
        )
        run("readpublic", "-c", "ak.ctx", "-f", "pem", "-o", "ak.pem", "-Q")
        nonce = os.urandom(20).hex()
        run(
            "quote",
            *("-c", "ak.ctx", "-l", "sha256:0,1,4,7,9", "-q", nonce, "-g", "sha256"),
            *("--scheme", scheme, "-m", "quote", "-s", "signature", "-o", "pcrs"),
        )
        listing = run("pcrread", "sha256:0,1,4,7,9")
        (base / "listing").write_bytes(listing)
        for key in ("ak.pub", "ak.pem"):
            for values in ("pcrs", "listing"):
                ran = run_cli(
                    capsys,
                    *("verify", "--scheme", "tpm2", base / "quote", "--format", "json"),
                    *("--signature", base / "signature", "--pcrs", base / values),
                    *("--trust-anchor", base / key, "--nonce", nonce),
                    *("--pcr-selection", "0,1,4,7,9"),
                )
                assert ran.status == 1, ran.err  # authentic; nobody has described anything
        name = (base / "ak.name").read_bytes().hex()
        assert (
            name
            in run_cli(
                capsys,
                *("verify", "--scheme", "tpm2", base / "quote", "--format", "json"),
                *("--signature", base / "signature", "--pcrs", base / "pcrs"),
                *("--trust-anchor", base / "ak.pub"),
            ).out
        )


def test_another_tpms_state_file_is_told_as_such(settings: TpmSettings) -> None:
    attester = TpmAttester(settings)
    attester.close()
    with started_swtpm() as other:
        moved = TpmAttester(replace(settings, tcti=other.tcti))
        try:
            with pytest.raises(UnavailableError, match=r"swtpm:path="):
                moved.attest(bytes(32))
        finally:
            moved.close()
