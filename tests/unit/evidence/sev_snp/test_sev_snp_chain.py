# SPDX-License-Identifier: Apache-2.0
"""From an endorsement key to the root: for each rule, a chain that breaks it and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from support.vendor_evidence import CHALLENGE, NOW, verify_with
from troth.errors import ChainError, UnavailableError
from troth.evidence.sev_snp.certificate_table import ARK, ASK, VCEK, encode_table
from troth.testing.sev_snp import SimulatedSnpGuest, SnpAuthority

GUEST = SimulatedSnpGuest(send_certificates=False)
AUTHORITY = GUEST.authority
STRANGER = SnpAuthority(label="stranger")
DAY = timedelta(days=1)
SHA384 = hashes.SHA384()
PSS_SHA384 = padding.PSS(padding.MGF1(SHA384), 48)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def documents(**changes: bytes | x509.Certificate | None) -> dict[str, bytes]:
    given = {"vcek": GUEST.certificate, "ask": AUTHORITY.ask, "ark": AUTHORITY.ark, **changes}
    return {
        name: value if isinstance(value, bytes) else der(value)
        for name, value in given.items()
        if value is not None
    }


def verify(*roots: x509.Certificate, **changes: object) -> object:
    return verify_with(
        GUEST.report(CHALLENGE),
        "sev_snp",
        *(roots or (AUTHORITY.ark,)),
        collateral=documents(**changes),
    )


def test_a_chain_of_three_leads_to_a_provisioned_root() -> None:
    verified = verify()
    assert verified.signer == AUTHORITY.ark.fingerprint(hashes.SHA256()).hex()
    assert not verified.signer_is_device


def test_the_provisioned_root_need_not_come_along() -> None:
    assert verify(ark=None).signer == AUTHORITY.ark.fingerprint(hashes.SHA256()).hex()


def test_the_chain_may_come_as_amd_hands_it_out() -> None:
    verify(ask=None, ark=AUTHORITY.chain())


def test_a_root_that_nobody_provisioned_is_refused_although_the_chain_holds() -> None:
    with pytest.raises(ChainError, match="no ARK-Milan certificate is a trust anchor") as caught:
        verify(SnpAuthority(product="Genoa").ark)
    assert "proves nothing" in caught.value.remedy


def test_no_trust_anchors_at_all_refuse_everything() -> None:
    with pytest.raises(ChainError, match="no ARK-Milan certificate is a trust anchor"):
        verify_with(GUEST.report(CHALLENGE), "sev_snp", collateral=documents())


def test_an_intermediate_alone_is_no_trust_anchor() -> None:
    with pytest.raises(UnavailableError, match=r"none ARK-Milan|no certificate ARK-Milan"):
        verify(AUTHORITY.ask, ark=None)


def test_a_root_of_the_same_name_by_somebody_else_is_refused() -> None:
    with pytest.raises(ChainError, match="is not signed by"):
        verify(STRANGER.ark, ark=None)


def test_a_vendors_name_believes_its_published_roots_and_no_others() -> None:
    with pytest.raises(ChainError, match="is a trust anchor"):
        verify_with(
            GUEST.report(CHALLENGE), "sev_snp", collateral=documents(), vendors=["amd", "aws"]
        )


@pytest.mark.parametrize("missing", ["vcek", "ask"])
def test_a_missing_certificate_is_not_held_against_the_attester(missing: str) -> None:
    with pytest.raises(UnavailableError) as caught:
        verify(**{missing: None})
    assert caught.value.remedy


def test_an_intermediate_by_somebody_else_is_refused() -> None:
    with pytest.raises(ChainError, match="collateral ask is not signed by trust anchor"):
        verify(ask=STRANGER.ask)


def test_the_right_intermediate_is_found_beside_a_wrong_one() -> None:
    verify(a_stranger=STRANGER.ask)


def test_an_endorsement_key_by_somebody_else_is_refused() -> None:
    forged = STRANGER.endorse(GUEST.key.public_key(), GUEST.tcb_version, hwid=GUEST.hwid)
    with pytest.raises(ChainError, match="collateral vcek is not signed by"):
        verify(vcek=forged)


@pytest.mark.parametrize("name", ["vcek", "ask", "ark"])
def test_one_octet_changed_in_a_signature_breaks_the_chain(name: str) -> None:
    changed = bytearray(documents()[name])
    changed[-20] ^= 1
    roots = (AUTHORITY.ark,)
    if name == "ark":  # as if the operator had provisioned the damaged one
        roots = (x509.load_der_x509_certificate(bytes(changed)),)
    with pytest.raises(ChainError, match=r"is not signed by|trust anchor"):
        verify(*roots, **{name: bytes(changed)})


def test_an_endorsement_key_that_may_sign_certificates_is_refused() -> None:
    ca = AUTHORITY.endorse(GUEST.key.public_key(), GUEST.tcb_version, hwid=GUEST.hwid, ca=True)
    with pytest.raises(ChainError, match="may sign certificates"):
        verify(vcek=ca)


def test_an_unknown_critical_extension_is_refused() -> None:
    plain = rebuilt(GUEST.certificate, "ask", AUTHORITY.ask.subject)
    verify(vcek=plain)
    critical = rebuilt(GUEST.certificate, "ask", AUTHORITY.ask.subject, critical=True)
    with pytest.raises(ChainError, match=r"critical extension 1\.3\.6\.1\.4\.1\.3704\.1\.1 is not"):
        verify(vcek=critical)


def test_an_intermediate_that_may_not_sign_is_refused() -> None:
    weak = rebuilt(AUTHORITY.ask, "ark", AUTHORITY.ark.subject, extensions=False)
    with pytest.raises(ChainError, match="collateral ask may not sign certificates"):
        verify(ask=weak)


@pytest.mark.parametrize(
    "padded",
    [padding.PKCS1v15(), None],
    ids=["RSASSA-PKCS1-v1_5", "ECDSA"],
)
def test_another_signature_algorithm_than_amds_is_refused(padded: padding.PKCS1v15 | None) -> None:
    key = None if padded is not None else ec.generate_private_key(ec.SECP384R1())
    changed = rebuilt(GUEST.certificate, "ask", AUTHORITY.ask.subject, padded=padded, key=key)
    with pytest.raises(ChainError, match=r"AMD uses RSASSA-PSS|is not issued by"):
        verify(vcek=changed)


def test_another_hash_than_amds_is_refused() -> None:
    changed = rebuilt(
        GUEST.certificate,
        "ask",
        AUTHORITY.ask.subject,
        padded=padding.PSS(padding.MGF1(hashes.SHA256()), 32),
        digest=hashes.SHA256(),
    )
    with pytest.raises(ChainError, match="not signed with RSASSA-PSS, SHA-384"):
        verify(vcek=changed)


@pytest.mark.parametrize(
    ("begins", "ends", "holds"),
    [(-DAY, DAY, True), (timedelta(seconds=1), DAY, False), (-DAY, -timedelta(seconds=1), False)],
)
def test_the_endorsement_key_is_valid_at_the_time(
    begins: timedelta, ends: timedelta, *, holds: bool
) -> None:
    certificate = AUTHORITY.endorse(
        GUEST.key.public_key(),
        GUEST.tcb_version,
        hwid=GUEST.hwid,
        not_before=NOW + begins,
        not_after=NOW + ends,
    )
    if holds:
        verify(vcek=certificate)
        return
    with pytest.raises(ChainError, match="are valid from"):
        verify(vcek=certificate)


def test_an_authority_that_has_ended_is_refused() -> None:
    ended = SnpAuthority(not_after=NOW - DAY)
    guest = SimulatedSnpGuest(authority=ended)
    with pytest.raises(ChainError, match="are valid from"):
        verify_with(guest.attest(CHALLENGE), "sev_snp", ended.ark)


def test_a_chain_that_was_verified_once_is_refused_when_it_has_ended() -> None:
    """What is remembered of a chain does not outlive it."""
    guest = SimulatedSnpGuest()
    verify_with(guest.attest(CHALLENGE), "sev_snp", guest.authority.ark)
    end = guest.certificate.not_valid_after_utc
    verify_with(guest.attest(CHALLENGE), "sev_snp", guest.authority.ark, now=end)
    with pytest.raises(ChainError, match="are valid from"):
        verify_with(
            guest.attest(CHALLENGE), "sev_snp", guest.authority.ark, now=end + timedelta(seconds=1)
        )


def test_a_chain_that_was_verified_once_is_refused_where_its_root_is_not_believed() -> None:
    guest = SimulatedSnpGuest()
    verify_with(guest.attest(CHALLENGE), "sev_snp", guest.authority.ark)
    with pytest.raises(ChainError, match="trust anchor"):
        verify_with(guest.attest(CHALLENGE), "sev_snp")


def test_the_number_of_chains_that_are_tried_is_limited() -> None:
    crowd = {
        f"ask-{index:02d}": rebuilt(STRANGER.ask, "ark", STRANGER.ark.subject, serial=index + 10)
        for index in range(20)
    }
    with pytest.raises(ChainError) as caught:
        verify(ask=None, **crowd)
    assert str(caught.value).count("is not") == 16


class TestRevocation:
    def list_of(self, *revoked: x509.Certificate, made: timedelta, due: timedelta) -> bytes:
        return AUTHORITY.revocations(*revoked, made=NOW + made, next_update=NOW + due)

    def state(self, **lists: bytes) -> object:
        return verify(**lists).claims_sets[0].claims["revocation"]

    def test_without_a_list_nothing_is_claimed(self) -> None:
        assert self.state() == "unchecked"

    def test_a_list_that_names_others_clears_the_intermediate(self) -> None:
        assert self.state(crl=self.list_of(AUTHORITY.asvk, made=-DAY, due=DAY)) == "current"

    def test_a_list_may_come_in_pem(self) -> None:
        crl = x509.load_der_x509_crl(self.list_of(made=-DAY, due=DAY))
        assert self.state(crl=crl.public_bytes(Encoding.PEM)) == "current"

    def test_a_list_that_names_the_intermediate_refuses(self) -> None:
        with pytest.raises(ChainError, match="AMD has revoked SEV-Milan"):
            self.state(crl=self.list_of(AUTHORITY.ask, made=-DAY, due=DAY))

    def test_a_list_that_is_due_for_renewal_is_stale_and_still_revokes(self) -> None:
        stale = self.list_of(made=-2 * DAY, due=-DAY)
        assert self.state(crl=stale) == "stale"
        with pytest.raises(ChainError, match="AMD has revoked"):
            self.state(crl=self.list_of(AUTHORITY.ask, made=-2 * DAY, due=-DAY))

    def test_the_newest_list_counts(self) -> None:
        older = self.list_of(AUTHORITY.ask, made=-2 * DAY, due=DAY)
        newer = self.list_of(made=-DAY, due=DAY)
        assert self.state(a=older, b=newer) == "current"
        with pytest.raises(ChainError, match="AMD has revoked"):
            self.state(
                a=self.list_of(made=-2 * DAY, due=DAY),
                b=self.list_of(AUTHORITY.ask, made=-DAY, due=DAY),
            )

    def test_a_list_from_the_future_does_not_count_before_its_time(self) -> None:
        future = self.list_of(AUTHORITY.ask, made=DAY, due=3 * DAY)
        assert self.state(crl=future) == "unchecked"
        # The chain is remembered, the verdict of the list is not.
        with pytest.raises(ChainError, match="AMD has revoked"):
            verify_with(
                GUEST.report(CHALLENGE),
                "sev_snp",
                AUTHORITY.ark,
                now=NOW + 2 * DAY,
                collateral=documents(crl=future),
            )

    def test_a_list_by_somebody_else_says_nothing(self) -> None:
        theirs = STRANGER.revocations(STRANGER.ask, made=NOW - DAY, next_update=NOW + DAY)
        assert self.state(crl=theirs) == "unchecked"

    def test_a_list_that_was_changed_says_nothing(self) -> None:
        changed = bytearray(self.list_of(AUTHORITY.ask, made=-DAY, due=DAY))
        changed[-20] ^= 1
        assert self.state(crl=bytes(changed)) == "unchecked"

    def test_it_is_told_from_the_time_when_a_remembered_list_gets_stale(self) -> None:
        crl = self.list_of(made=-DAY, due=DAY)
        assert self.state(crl=crl) == "current"
        later = verify_with(
            GUEST.report(CHALLENGE),
            "sev_snp",
            AUTHORITY.ark,
            now=NOW + 2 * DAY,
            collateral=documents(crl=crl),
        )
        assert later.claims_sets[0].claims["revocation"] == "stale"


def test_damaged_collateral_is_named_where_something_is_missing() -> None:
    with pytest.raises(UnavailableError, match="vcek cannot be read"):
        verify(vcek=der(GUEST.certificate)[:-1])


def test_documents_of_other_schemes_do_not_disturb() -> None:
    verify(other=b'{"tcbInfo": {}}', empty=b"", text=b"read me")


def test_a_damaged_certificate_in_the_evidence_refuses_it() -> None:
    table = encode_table(
        {VCEK: der(GUEST.certificate)[:-1], ASK: der(AUTHORITY.ask), ARK: der(AUTHORITY.ark)}
    )
    with pytest.raises(Exception, match="not a certificate") as caught:
        verify_with(GUEST.report(CHALLENGE) + table, "sev_snp", AUTHORITY.ark)
    assert type(caught.value).__module__ == "troth.errors"


def rebuilt(
    certificate: x509.Certificate,
    role: str,
    issuer: x509.Name,
    *,
    serial: int = 5,
    extensions: bool = True,
    critical: bool = False,
    padded: padding.PSS | padding.PKCS1v15 | None = PSS_SHA384,
    digest: hashes.SHA256 | hashes.SHA384 = SHA384,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> x509.Certificate:
    """Return the certificate signed anew, with something changed."""
    stranger = certificate.issuer == STRANGER.ark.subject and certificate == STRANGER.ask
    signer = key or (STRANGER if stranger else AUTHORITY)._key(role)
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(issuer)
        .public_key(certificate.public_key())
        .serial_number(serial)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    if extensions:
        for extension in certificate.extensions:
            builder = builder.add_extension(extension.value, critical or extension.critical)
    return builder.sign(signer, digest, rsa_padding=padded)
