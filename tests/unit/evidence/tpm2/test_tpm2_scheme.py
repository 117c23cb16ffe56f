# SPDX-License-Identifier: Apache-2.0
"""Verification of TPM Evidence: each condition, and the neighbour that breaks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from support.software_tpm import (
    AK_ATTRIBUTES,
    RSAPSS,
    SHA1,
    SHA256,
    SHA384,
    BootLog,
    FileLog,
    SoftwareTpm,
    p256,
    public_area,
    selection_of,
    sized,
)
from support.x509 import NOW, Plan, sign, signing, usage
from troth.errors import (
    ApiMisuseError,
    BindingError,
    ChainError,
    FreshnessError,
    SignatureError,
)
from troth.evidence.context import Collateral, VerificationContext
from troth.evidence.evidence import NonceMatched, Unchecked
from troth.evidence.tpm2 import SCHEME, Tpm2Scheme
from troth.evidence.tpm2.measurements import VerifiedQuote
from troth.formats.keys import VerificationKey, thumbprint
from troth.formats.tpm.public import (
    FIXED_PARENT,
    FIXED_TPM,
    RESTRICTED,
    SENSITIVE_DATA_ORIGIN,
    SIGN,
)

CHALLENGE = bytes(range(32))
CONTEXT = VerificationContext(now=NOW)


class Registered:
    """Keys by the name that they are registered under, and roots."""

    def __init__(
        self, *tpms: SoftwareTpm, roots: Sequence[x509.Certificate] = (), any_key: Any = None
    ) -> None:
        self._keys = {tpm.name: VerificationKey(tpm.key.public_key()) for tpm in tpms}
        self._roots = roots
        self._any = [] if any_key is None else [VerificationKey(any_key.public_key())]

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        assert (scheme, implementation_id) == ("tpm2", b"")
        found = self._keys.get(instance_id)
        return [*self._any, found] if found else self._any

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        assert scheme == "tpm2"
        return self._roots


def verify(
    data: bytes,
    anchors: Registered,
    *,
    challenge: bytes | Unchecked = CHALLENGE,
    scheme: Any = SCHEME,
    **options: Any,
) -> VerifiedQuote:
    return scheme.verify(scheme.decode(data), trust_anchors=anchors, freshness=challenge, **options)


def test_evidence_under_a_registered_key_is_authentic() -> None:
    tpm = SoftwareTpm()
    tpm.measure(4, b"boot loader")
    verified = verify(tpm.evidence(CHALLENGE), Registered(tpm))
    assert verified.freshness == NonceMatched(CHALLENGE)
    assert verified.instance_id == tpm.name
    assert verified.implementation_id == b""
    assert verified.signer == thumbprint(tpm.key.public_key())
    assert verified.signer_is_device
    assert verified.insecure == ()
    assert verified.measured.values["sha-256"][4] == tpm.registers[SHA256][4]
    (claims_set,) = verified.claims_sets
    assert (claims_set.label, claims_set.component, claims_set.layer) == (
        "tpm2",
        "node",
        "hardware",
    )


@pytest.mark.parametrize(
    "tpm",
    [
        SoftwareTpm(key=ec.generate_private_key(ec.SECP384R1()), hash=SHA384),
        SoftwareTpm(key=rsa.generate_private_key(65537, 2048)),
        SoftwareTpm(key=rsa.generate_private_key(65537, 2048), scheme=RSAPSS),
    ],
    ids=["p384", "rsassa", "rsapss"],
)
def test_keys_of_every_kind_are_taken(tpm: SoftwareTpm) -> None:
    assert verify(tpm.evidence(CHALLENGE), Registered(tpm)).instance_id == tpm.name


class TestKeys:
    def test_a_key_that_nobody_registered_is_refused_with_its_name(self) -> None:
        tpm = SoftwareTpm()
        with pytest.raises(
            SignatureError, match=f"no trust anchor for instance id {tpm.name.hex()}"
        ):
            verify(tpm.evidence(CHALLENGE), Registered())

    def test_a_signature_of_another_key_is_refused(self) -> None:
        tpm, other = SoftwareTpm(), SoftwareTpm(key=p256("other"))
        forged = tpm.evidence(
            CHALLENGE, signature=other.sign(tpm.quote(CHALLENGE, {SHA256: range(10)}))
        )
        with pytest.raises(SignatureError, match="does not verify"):
            verify(forged, Registered(tpm))

    def test_a_changed_quote_is_refused(self) -> None:
        tpm = SoftwareTpm()
        quote = tpm.quote(CHALLENGE, {SHA256: range(10)})
        tpm.reset_count += 1
        forged = tpm.evidence(CHALLENGE, signature=tpm.sign(quote))
        with pytest.raises(SignatureError, match="does not verify"):
            verify(forged, Registered(tpm))

    def test_the_public_area_of_another_key_is_refused(self) -> None:
        tpm, other = SoftwareTpm(), SoftwareTpm(key=p256("other"))
        mixed = tpm.evidence(CHALLENGE, attestation_key=other.public)
        with pytest.raises(BindingError, match="not that of the key that signed"):
            verify(mixed, Registered(any_key=tpm.key))

    @pytest.mark.parametrize(
        ("attribute", "name"),
        [
            (RESTRICTED, "restricted"),
            (SIGN, "sign"),
            (FIXED_TPM, "fixedtpm"),
            (FIXED_PARENT, "fixedparent"),
            (SENSITIVE_DATA_ORIGIN, "sensitivedataorigin"),
        ],
    )
    def test_a_key_that_lacks_an_attribute_is_refused_though_it_is_registered(
        self, attribute: int, name: str
    ) -> None:
        tpm = SoftwareTpm(attributes=AK_ATTRIBUTES & ~attribute)
        with pytest.raises(SignatureError, match=f"the attestation key is not {name}"):
            verify(tpm.evidence(CHALLENGE), Registered(tpm))

    def test_a_key_that_decrypts_as_well_is_refused(self) -> None:
        tpm = SoftwareTpm(attributes=AK_ATTRIBUTES | 1 << 17)
        with pytest.raises(SignatureError, match="may decrypt as well as sign"):
            verify(tpm.evidence(CHALLENGE), Registered(tpm))

    def test_a_key_known_by_a_sha_1_name_is_refused(self) -> None:
        tpm = SoftwareTpm()
        area = public_area(tpm.key, name_algorithm=SHA1)
        with pytest.raises(SignatureError, match="a name by sha-1"):
            verify(tpm.evidence(CHALLENGE, attestation_key=area), Registered(any_key=tpm.key))

    def test_a_scheme_that_the_key_does_not_sign_by_is_refused(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        tpm = SoftwareTpm(key=key)
        quote = tpm.quote(CHALLENGE, {SHA256: range(10)})
        other = SoftwareTpm(key=key, scheme=RSAPSS).sign(quote)
        with pytest.raises(
            SignatureError,
            match="signed with RSAPSS over sha-256; the attestation key signs with RSASSA",
        ):
            verify(tpm.evidence(CHALLENGE, signature=other), Registered(tpm))

    def test_without_a_public_area_the_key_is_found_by_its_qualified_name(self) -> None:
        tpm = SoftwareTpm()
        data = tpm.evidence(CHALLENGE, attestation_key=b"")
        verified = verify(data, Registered(any_key=tpm.key))
        assert verified.instance_id == SCHEME.decode(data).quote.qualified_signer
        with pytest.raises(SignatureError, match="no trust anchor"):
            verify(data, Registered(tpm))

    def test_a_published_test_key_is_refused_or_labelled(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tpm = SoftwareTpm()
        monkeypatch.setattr(
            "troth.evidence.insecure.PUBLISHED_KEYS", {thumbprint(tpm.key.public_key()): "a test"}
        )
        with pytest.raises(SignatureError, match="the AK is a published test key"):
            verify(tpm.evidence(CHALLENGE), Registered(tpm))
        allowed = verify(tpm.evidence(CHALLENGE), Registered(tpm), allow_test_keys=True)
        assert allowed.insecure == ("published test key as AK: a test",)
        assert not allowed.signer_is_device


class TestFreshness:
    def test_another_challenge_is_refused(self) -> None:
        tpm = SoftwareTpm()
        with pytest.raises(FreshnessError, match="extraData"):
            verify(tpm.evidence(bytes(32)), Registered(tpm))

    @pytest.mark.parametrize("sent", [CHALLENGE[:-1], CHALLENGE + b"\0", b""])
    def test_a_challenge_is_compared_whole(self, sent: bytes) -> None:
        tpm = SoftwareTpm()
        with pytest.raises(FreshnessError):
            verify(tpm.evidence(sent), Registered(tpm))

    def test_freshness_may_be_left_unchecked_in_so_many_words(self) -> None:
        tpm, why = SoftwareTpm(), Unchecked("recorded")
        assert verify(tpm.evidence(bytes(32)), Registered(tpm), challenge=why).freshness == why

    def test_a_reboot_and_a_resume_are_other_boot_sessions(self) -> None:
        tpm = SoftwareTpm()
        sessions = {
            verify(each.evidence(CHALLENGE), Registered(each)).boot_session
            for each in (
                tpm,
                replace(tpm, registers={}, reset_count=8),
                replace(tpm, registers={}, restart_count=2),
            )
        }
        assert len(sessions) == 3


class TestRegisters:
    def test_values_that_were_not_quoted_are_refused(self) -> None:
        tpm = SoftwareTpm()
        values = bytearray(tpm.values({SHA256: range(10)}))
        values[-1] ^= 1
        with pytest.raises(BindingError, match="not the quoted ones"):
            verify(tpm.evidence(CHALLENGE, pcr_values=bytes(values)), Registered(tpm))

    @pytest.mark.parametrize("count", [9, 11])
    def test_values_of_more_or_fewer_registers_are_refused(self, count: int) -> None:
        tpm = SoftwareTpm()
        values = tpm.values({SHA256: range(count)})
        with pytest.raises(
            BindingError, match=f"320 octets of registers, the Evidence brings {32 * count}"
        ):
            verify(tpm.evidence(CHALLENGE, pcr_values=values), Registered(tpm))

    def test_a_quote_of_no_register_is_refused(self) -> None:
        tpm = SoftwareTpm()
        for selection in (selection_of({}), selection_of({SHA256: []})):
            quote = tpm.attest(0x8018, CHALLENGE, selection + sized(bytes(32)))
            with pytest.raises(BindingError, match="selects no register"):
                verify(tpm.evidence(CHALLENGE, quote=quote, pcr_values=b""), Registered(tpm))

    def test_every_missing_register_that_was_asked_for_is_named(self) -> None:
        tpm = SoftwareTpm()
        asking = Tpm2Scheme(required_pcrs=(0, 4, 12, 14))
        with pytest.raises(BindingError, match="PCR 12, 14 were asked for and not quoted"):
            verify(tpm.evidence(CHALLENGE), Registered(tpm), scheme=asking)
        whole = tpm.evidence(CHALLENGE, {SHA256: range(16)})
        assert verify(whole, Registered(tpm), scheme=asking)

    def test_a_sha_1_register_does_not_count_as_quoted(self) -> None:
        tpm = SoftwareTpm(banks=(SHA1, SHA256))
        asking = Tpm2Scheme(required_pcrs=(7,))
        weak = tpm.evidence(CHALLENGE, {SHA1: [7], SHA256: [0]})
        with pytest.raises(BindingError, match="PCR 7 was asked for"):
            verify(weak, Registered(tpm), scheme=asking)


def measured_host(**boot: Any) -> tuple[SoftwareTpm, BootLog]:
    tpm = SoftwareTpm(banks=(SHA1, SHA256))
    log = BootLog(banks=(SHA1, SHA256), tpm=tpm)
    log.boot(**boot)
    return tpm, log


class TestEventLog:
    def test_a_log_that_leads_to_the_registers_explains_them(self) -> None:
        tpm, log = measured_host()
        verified = verify(tpm.evidence(CHALLENGE, event_log=log.data), Registered(tpm))
        assert sorted(verified.measured.events) == list(range(10))
        assert verified.measured.secure_boot is True
        claims = verified.claims_sets[0].claims["event-log"]
        assert claims["secure-boot"] is True
        assert claims["events"] == 17
        assert claims["explained-pcrs"] == list(range(10))

    @pytest.mark.parametrize("pcr", [0, 2, 4, 7, 8, 9])
    def test_a_log_without_something_that_was_extended_is_refused_with_the_register(
        self, pcr: int
    ) -> None:
        tpm, log = measured_host()
        tpm.measure(pcr, b"behind the log's back")
        with pytest.raises(BindingError, match=rf"quoted PCR {pcr} \(sha-256\)"):
            verify(tpm.evidence(CHALLENGE, event_log=log.data), Registered(tpm))

    def test_the_log_of_another_boot_is_refused(self) -> None:
        tpm, _ = measured_host()
        _, other = measured_host(kernel=b"another kernel")
        with pytest.raises(BindingError, match="quoted PCR 9"):
            verify(tpm.evidence(CHALLENGE, event_log=other.data), Registered(tpm))

    def test_a_firmware_register_that_the_log_says_nothing_of_must_be_untouched(self) -> None:
        tpm = SoftwareTpm()
        log = BootLog(tpm=tpm)
        log.add(0, 8, b"firmware")
        assert verify(tpm.evidence(CHALLENGE, event_log=log.data), Registered(tpm))
        tpm.measure(4, b"unlogged")
        with pytest.raises(BindingError, match="quoted PCR 4"):
            verify(tpm.evidence(CHALLENGE, event_log=log.data), Registered(tpm))

    def test_a_register_that_the_system_goes_on_extending_is_left_unexplained(self) -> None:
        tpm, log = measured_host()
        log.add(11, 0x0D, b"unified kernel image")
        tpm.measure(11, b"systemd: enter-initrd")
        data = tpm.evidence(CHALLENGE, {SHA256: range(12)}, event_log=log.data)
        assert 11 not in verify(data, Registered(tpm)).measured.events

    def test_a_log_in_a_bank_that_was_not_quoted_is_refused(self) -> None:
        tpm = SoftwareTpm(banks=(SHA256, SHA384))
        log = BootLog(banks=(SHA384,), tpm=tpm)
        log.boot()
        with pytest.raises(BindingError, match="has digests by sha-384, the quote is of sha-256"):
            verify(tpm.evidence(CHALLENGE, event_log=log.data), Registered(tpm))

    def test_every_quoted_bank_is_replayed_and_the_strongest_explains(self) -> None:
        tpm, log = measured_host()
        both = {SHA1: range(10), SHA256: range(10)}
        verified = verify(tpm.evidence(CHALLENGE, both, event_log=log.data), Registered(tpm))
        assert verified.measured.bank is not None
        assert verified.measured.bank.name == "sha-256"
        tpm.registers[SHA1][9] = bytes(20)
        with pytest.raises(BindingError, match=r"quoted PCR 9 \(sha-1\)"):
            verify(tpm.evidence(CHALLENGE, both, event_log=log.data), Registered(tpm))

    def test_secure_boot_is_unknown_where_pcr_7_was_not_quoted(self) -> None:
        tpm, log = measured_host()
        data = tpm.evidence(CHALLENGE, {SHA256: [0, 4]}, event_log=log.data)
        verified = verify(data, Registered(tpm))
        assert verified.measured.secure_boot is None
        assert "secure-boot" not in verified.claims_sets[0].claims["event-log"]


class TestImaLog:
    def host(self) -> tuple[SoftwareTpm, FileLog]:
        tpm, _ = measured_host()
        files = FileLog(tpm=tpm)
        files.add_aggregate(tpm)
        files.add("/usr/bin/envoy", b"envoy")
        return tpm, files

    def test_files_that_lead_to_pcr_10_are_believed(self) -> None:
        tpm, files = self.host()
        data = tpm.evidence(CHALLENGE, {SHA256: range(11)}, ima_log=files.binary)
        verified = verify(data, Registered(tpm))
        assert verified.measured.files is not None
        assert [each.path for each in verified.measured.files] == [
            "boot_aggregate",
            "/usr/bin/envoy",
        ]
        assert verified.measured.is_boot_aggregate_right is True
        assert verified.claims_sets[0].claims["ima-log"] == {
            "entries": 2,
            "violations": 0,
            "boot-aggregate-matches": True,
        }

    def test_files_that_do_not_lead_to_pcr_10_are_refused(self) -> None:
        tpm, files = self.host()
        tpm.measure(10, b"unlogged")
        data = tpm.evidence(CHALLENGE, {SHA256: range(11)}, ima_log=files.ascii)
        with pytest.raises(BindingError, match="no part of the IMA log leads to the quoted PCR 10"):
            verify(data, Registered(tpm))

    def test_a_log_without_a_quote_of_pcr_10_is_refused(self) -> None:
        tpm, files = self.host()
        with pytest.raises(BindingError, match="without a quote of PCR 10"):
            verify(tpm.evidence(CHALLENGE, ima_log=files.ascii), Registered(tpm))

    def test_every_quoted_bank_must_vouch_for_the_files(self) -> None:
        tpm, files = self.host()
        both = {SHA1: [10], SHA256: range(11)}
        assert verify(tpm.evidence(CHALLENGE, both, ima_log=files.ascii), Registered(tpm))
        tpm.registers[SHA1][10] = b"\x01" * 20
        with pytest.raises(BindingError, match=r"PCR 10 \(sha-1\)"):
            verify(tpm.evidence(CHALLENGE, both, ima_log=files.ascii), Registered(tpm))

    def test_a_kernel_that_extends_padded_sha_1_is_refused_by_name(self) -> None:
        import hashlib  # noqa: PLC0415 - this test alone

        tpm, files = SoftwareTpm(), FileLog()
        files.add("/bin/sh", b"shell")
        entry = SCHEME.decode(tpm.evidence(CHALLENGE, ima_log=files.ascii)).ima_log
        assert entry is not None
        digest = hashlib.sha1(entry.entries[0].template_data, usedforsecurity=False).digest()
        tpm.extend(10, {SHA256: digest.ljust(32, b"\0")})
        data = tpm.evidence(CHALLENGE, {SHA256: [10]}, ima_log=files.ascii)
        with pytest.raises(BindingError, match="extended SHA-1 digests into PCR 10"):
            verify(data, Registered(tpm))

    def test_an_aggregate_of_other_registers_is_noticed(self) -> None:
        tpm, _ = measured_host()
        files = FileLog(tpm=tpm)
        files.add("boot_aggregate", b"", digest=bytes(32))
        data = tpm.evidence(CHALLENGE, {SHA256: range(11)}, ima_log=files.ascii)
        assert verify(data, Registered(tpm)).measured.is_boot_aggregate_right is False

    def test_an_aggregate_of_registers_that_were_not_quoted_is_unknown(self) -> None:
        tpm, files = self.host()
        data = tpm.evidence(CHALLENGE, {SHA256: [4, 10]}, ima_log=files.ascii)
        assert verify(data, Registered(tpm)).measured.is_boot_aggregate_right is None


class TestCertificates:
    ROOT = signing(uris=())

    def leaf(self, tpm: SoftwareTpm, **changes: Any) -> Plan:
        given = {"key": tpm.key, "uris": (), "uses": None, "ca": False}
        return Plan(**{**given, **changes})

    def evidence(self, tpm: SoftwareTpm, *chain: x509.Certificate, **parts: Any) -> bytes:
        der = [each.public_bytes(Encoding.DER) for each in chain]
        return tpm.evidence(CHALLENGE, certificates=der, **parts)

    def test_a_certified_key_is_believed_and_its_root_is_the_class(self) -> None:
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - this test alone

        tpm, root = SoftwareTpm(), sign(self.ROOT)
        data = self.evidence(tpm, sign(self.leaf(tpm), self.ROOT))
        verified = verify(data, Registered(roots=[root]), context=CONTEXT)
        assert verified.instance_id == tpm.name
        assert verified.implementation_id == root.fingerprint(hashes.SHA256())
        assert verified.signer == root.fingerprint(hashes.SHA256()).hex()
        assert not verified.signer_is_device

    def test_intermediates_come_along(self) -> None:
        tpm = SoftwareTpm()
        issuer = signing(subject="issuer", uris=())
        chain = [sign(self.leaf(tpm), issuer), sign(issuer, self.ROOT)]
        anchors = Registered(roots=[sign(self.ROOT)])
        assert verify(self.evidence(tpm, *chain), anchors, context=CONTEXT)
        with pytest.raises(ChainError, match="no valid path"):
            verify(self.evidence(tpm, chain[0]), anchors, context=CONTEXT)

    def test_intermediates_may_be_in_the_collateral(self) -> None:
        tpm = SoftwareTpm()
        issuer = signing(subject="issuer", uris=())
        data = self.evidence(tpm, sign(self.leaf(tpm), issuer))
        documents = {
            "issuer.pem": sign(issuer, self.ROOT).public_bytes(Encoding.PEM),
            "notes.txt": b"not a certificate",
        }
        context = VerificationContext(now=NOW, collateral=Collateral(documents))
        assert verify(data, Registered(roots=[sign(self.ROOT)]), context=context)

    def test_a_registered_key_needs_no_path(self) -> None:
        tpm = SoftwareTpm()
        data = self.evidence(tpm, sign(self.leaf(tpm), self.ROOT))
        assert verify(data, Registered(tpm)).signer_is_device

    def test_another_root_or_none_is_refused(self) -> None:
        tpm = SoftwareTpm()
        data = self.evidence(tpm, sign(self.leaf(tpm), self.ROOT))
        other = sign(signing(subject="other", uris=()))
        with pytest.raises(ChainError, match="no valid path"):
            verify(data, Registered(roots=[other]), context=CONTEXT)
        with pytest.raises(ChainError, match="no root certificate for scheme tpm2"):
            verify(data, Registered(), context=CONTEXT)

    def test_a_certificate_that_has_ended_is_refused(self) -> None:
        tpm = SoftwareTpm()
        data = self.evidence(tpm, sign(self.leaf(tpm), self.ROOT))
        late = VerificationContext(now=NOW + timedelta(hours=2))
        with pytest.raises(ChainError, match="no valid path"):
            verify(data, Registered(roots=[sign(self.ROOT)]), context=late)

    def test_a_path_without_a_clock_is_a_mistake_of_the_caller(self) -> None:
        tpm = SoftwareTpm()
        data = self.evidence(tpm, sign(self.leaf(tpm), self.ROOT))
        with pytest.raises(ApiMisuseError, match="clock reading"):
            verify(data, Registered(roots=[sign(self.ROOT)]))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"uses": (x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1"),)}, "is for 1.3.6.1.5.5.7.3.1"),
            ({"usage": usage("key_encipherment")}, "allows none of digital_signature"),
            ({"ca": True}, "is a certification authority's"),
        ],
    )
    def test_a_certificate_for_something_else_is_refused(
        self, change: dict[str, Any], reason: str
    ) -> None:
        tpm = SoftwareTpm()
        data = self.evidence(tpm, sign(self.leaf(tpm, **change), self.ROOT))
        with pytest.raises(ChainError, match=reason):
            verify(data, Registered(roots=[sign(self.ROOT)]), context=CONTEXT)

    def test_a_certificate_of_another_key_does_not_help_a_quote(self) -> None:
        tpm, other = SoftwareTpm(), SoftwareTpm(key=p256("other"))
        data = self.evidence(tpm, sign(self.leaf(other), self.ROOT))
        with pytest.raises(SignatureError, match="does not verify"):
            verify(data, Registered(roots=[sign(self.ROOT)]), context=CONTEXT)

    def test_a_root_among_the_roots_is_nobodys_attestation_key(self) -> None:
        tpm = SoftwareTpm()
        own = sign(
            self.leaf(
                tpm, subject="self", ca=True, usage=usage("digital_signature", "key_cert_sign")
            )
        )
        with pytest.raises(ChainError):
            verify(self.evidence(tpm, own), Registered(roots=[own]), context=CONTEXT)
