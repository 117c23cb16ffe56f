# SPDX-License-Identifier: Apache-2.0
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from support.x509 import NOW, TLS_USES, Plan, p256, sign, signing, usage
from troth.errors import ChainError
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle, TrustBundleSet
from troth.identity.x509_path import MAX_INTERMEDIATES, VerifiedX509Svid, verify_x509_svid
from troth.identity.x509_svid import X509Svid

DOMAIN = TrustDomain("example.org")
ROOT = signing()
ROOT_CERTIFICATE = sign(ROOT)
ISSUER = signing(subject="issuer", path_length=0)
LEAF = Plan()
SECOND = timedelta(seconds=1)


def bundles(*certificates: x509.Certificate, domain: TrustDomain = DOMAIN) -> TrustBundleSet:
    return TrustBundleSet([TrustBundle(trust_domain=domain, x509_authorities=certificates)])


def verify(
    *chain: x509.Certificate,
    authorities: Sequence[x509.Certificate] = (ROOT_CERTIFICATE,),
    now: object = NOW,
) -> VerifiedX509Svid:
    return verify_x509_svid(X509Svid(chain=chain), bundles(*authorities), now=now)


def test_a_leaf_under_an_authority_of_its_trust_domain_is_verified() -> None:
    leaf = sign(LEAF, ROOT)
    verified = verify(leaf)
    assert verified.path == (leaf, ROOT_CERTIFICATE)
    assert verified.authority == ROOT_CERTIFICATE
    assert verified.svid.leaf == leaf


def test_a_leaf_under_an_intermediate_is_verified() -> None:
    leaf, issuer = sign(LEAF, ISSUER), sign(ISSUER, ROOT)
    assert verify(leaf, issuer).path == (leaf, issuer, ROOT_CERTIFICATE)
    with pytest.raises(ChainError):
        verify(leaf)


def test_certificates_that_do_not_belong_do_no_harm_and_are_not_in_the_path() -> None:
    leaf, issuer, stranger = sign(LEAF, ISSUER), sign(ISSUER, ROOT), sign(signing(subject="x"))
    assert verify(leaf, stranger, issuer).path == (leaf, issuer, ROOT_CERTIFICATE)


def test_either_authority_serves_while_a_key_is_replaced() -> None:
    # The same name with another key, as some authorities rotate.
    following = signing()
    both = (sign(following), ROOT_CERTIFICATE)
    assert verify(sign(LEAF, ROOT), authorities=both).authority == both[1]
    assert verify(sign(LEAF, following), authorities=both).authority == both[0]


def test_an_intermediate_in_the_bundle_is_an_authority() -> None:
    issuer = sign(ISSUER, ROOT)
    assert verify(sign(LEAF, ISSUER), authorities=[issuer]).authority == issuer


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)]
)
def test_authorities_of_other_key_types_serve(key: object) -> None:
    root = signing(key=key)
    assert verify(sign(LEAF, root), authorities=[sign(root)])


def test_an_ed25519_authority_is_refused_as_documented() -> None:
    root = signing(key=ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(ChainError):
        verify(sign(LEAF, root), authorities=[sign(root)])


def test_the_bundle_of_another_trust_domain_is_not_asked() -> None:
    svid = X509Svid(chain=[sign(LEAF, ROOT)])
    for source in (
        TrustBundleSet(),
        bundles(),
        bundles(ROOT_CERTIFICATE, domain=TrustDomain("other.org")),
    ):
        with pytest.raises(ChainError, match=r"no authorities for trust domain example\.org"):
            verify_x509_svid(svid, source, now=NOW)


def test_a_source_that_answers_with_another_domains_bundle_is_not_believed() -> None:
    class Careless:
        def bundle(self, trust_domain: TrustDomain) -> TrustBundle:
            del trust_domain
            return TrustBundle(
                trust_domain=TrustDomain("other.org"), x509_authorities=[ROOT_CERTIFICATE]
            )

    with pytest.raises(ChainError, match="no authorities"):
        verify_x509_svid(X509Svid(chain=[sign(LEAF, ROOT)]), Careless(), now=NOW)


def test_a_foreign_authority_cannot_name_our_workloads() -> None:
    foreign = signing(subject="foreign", uris=("spiffe://other.org",))
    with pytest.raises(ChainError):
        verify(sign(LEAF, foreign), sign(foreign))


def test_a_signature_by_a_stranger_under_the_authoritys_name_is_refused() -> None:
    with pytest.raises(ChainError, match="signature"):
        verify(sign(LEAF, ROOT, with_key=p256()))


@pytest.mark.parametrize(
    "changes",
    [
        {"ca": False, "path_length": None},
        {"ca": None},
        {"usage": usage("digital_signature")},
        {"usage": None},
        {"usage_critical": False},
        {"uris": ("spiffe://example.org/intermediate",)},
        {"uris": ("spiffe://example.org", "spiffe://other.org")},
        {"uris": ("spiffe://Example.org",)},
        {"uses": (ExtendedKeyUsageOID.CODE_SIGNING,)},
        {"uses": (ExtendedKeyUsageOID.SERVER_AUTH,)},
        {"not_after": NOW - SECOND},
        {"not_before": NOW + SECOND},
        {"key": rsa.generate_private_key(65537, 1024)},  # noqa: S505 - what is to be refused
        {"more": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x"), True)]},
        {
            "more": [
                (
                    x509.NameConstraints(
                        permitted_subtrees=[x509.UniformResourceIdentifier("example.org")],
                        excluded_subtrees=None,
                    ),
                    True,
                )
            ]
        },
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_intermediate_that_must_not_sign_is_refused(changes: Mapping[str, object]) -> None:
    issuer = replace(ISSUER, **changes)
    with pytest.raises(ChainError):
        verify(sign(LEAF, issuer), sign(issuer, ROOT))


@pytest.mark.parametrize(
    "changes",
    [
        {"uris": ()},
        {"uris": ("https://ca.example.org",)},
        {"uris": ("spiffe://other.org",)},
        {"uses": TLS_USES},
        {"uses": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)},
        {"usage_critical": False, "uris": ()},
        {"path_length": None},
        {"more": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x"), False)]},
    ],
)
def test_what_the_specification_leaves_open_for_an_intermediate_is_taken(
    changes: Mapping[str, object],
) -> None:
    issuer = replace(ISSUER, **changes)
    assert verify(sign(LEAF, issuer), sign(issuer, ROOT))


def test_a_path_longer_than_an_issuer_allows_is_refused() -> None:
    below = signing(subject="below")
    chain = sign(LEAF, below), sign(below, ISSUER)
    with pytest.raises(ChainError):
        verify(*chain, sign(ISSUER, ROOT))
    longer = replace(ISSUER, path_length=1)
    assert verify(*chain, sign(longer, ROOT))


def test_a_path_has_a_longest_form() -> None:
    plans = [signing(subject=f"ca {n}") for n in range(MAX_INTERMEDIATES + 1)]
    below = [sign(plan, issuer) for plan, issuer in zip(plans, [*plans[1:], ROOT], strict=True)]
    with pytest.raises(ChainError, match="signing certificates"):
        verify(sign(LEAF, plans[0]), *below)
    assert verify(sign(LEAF, plans[1]), *below[1:])


def test_a_leaf_that_signs_for_another_leaf_is_refused() -> None:
    middle = Plan(subject="middle")
    with pytest.raises(ChainError):
        verify(sign(LEAF, middle), sign(middle, ROOT))


def test_a_leaf_in_the_bundle_does_not_vouch_for_itself() -> None:
    for leaf in (sign(LEAF), sign(LEAF, ROOT)):
        with pytest.raises(ChainError):
            verify(leaf, authorities=[leaf])


def test_time_is_the_callers() -> None:
    leaf = sign(replace(LEAF, not_before=NOW, not_after=NOW + 10 * SECOND), ROOT)
    for now in (NOW, NOW + 10 * SECOND, NOW.astimezone(timezone(timedelta(hours=9)))):
        assert verify(leaf, now=now)
    for now in (NOW - SECOND, NOW + 11 * SECOND):
        with pytest.raises(ChainError, match="valid"):
            verify(leaf, now=now)


def test_an_authority_that_has_ended_vouches_no_more() -> None:
    root = signing(not_after=NOW + SECOND)
    authorities = [sign(root)]
    leaf = sign(LEAF, root)
    verified = verify(leaf, authorities=authorities)
    assert verified.not_after == NOW + SECOND < verified.svid.not_after
    with pytest.raises(ChainError):
        verify(leaf, authorities=authorities, now=NOW + 2 * SECOND)


def test_a_critical_extension_that_nobody_knows_is_refused() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x")
    with pytest.raises(ChainError, match="critical"):
        verify(sign(replace(LEAF, more=[(unknown, True)]), ROOT))
    assert verify(sign(replace(LEAF, more=[(unknown, False)]), ROOT))


def test_the_refusal_names_who_was_refused_and_what_to_look_at() -> None:
    with pytest.raises(ChainError, match=r"spiffe://example\.org/web") as refusal:
        verify(sign(LEAF, ROOT), authorities=[sign(signing(subject="other"))])
    assert "bundle" in refusal.value.remedy
