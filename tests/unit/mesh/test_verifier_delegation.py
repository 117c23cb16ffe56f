# SPDX-License-Identifier: Apache-2.0
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from support.attested_world import Node, World
from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    TrothError,
    UnsupportedError,
)
from troth.formats.jose import sign_jwt, verify_jwt
from troth.formats.jwk import thumbprint
from troth.formats.keys import VerificationKey
from troth.formats.signer import LocalSigner
from troth.mesh.passport import PassportReader, TrustedVerifier
from troth.mesh.tier import Tier
from troth.mesh.verifier_delegation import VerifierDelegation, verify_delegation

_LEAD = ec.generate_private_key(ec.SECP256R1())
_SIGNER = LocalSigner(_LEAD, "lead-1")
_LEAD_KEY = VerificationKey(_LEAD.public_key(), key_id="lead-1")


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def node(world: World) -> Node:
    return world.join("edge")


def _delegation(world: World, **changes: Any) -> VerifierDelegation:
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    plain = VerifierDelegation(
        verifier="plant-7",
        key=world.trusted.keys[0],
        site="plant-7",
        schemes=("psa",),
        tier_ceiling=Tier.MEASURED,
        not_before=start,
        not_after=start + timedelta(days=7),
    )
    return replace(plain, **changes)


def _read(world: World, node: Node, **changes: Any) -> Any:
    trusted = TrustedVerifier.delegated(_delegation(world, **changes))
    digest = hashlib.sha256(node.svid.spki).digest()
    return PassportReader([trusted]).read(node.passport, key_digest=digest, now=datetime.now(UTC))


def test_a_delegation_comes_back_as_it_was_signed(world: World) -> None:
    given_out = _delegation(world)
    token = given_out.sign(_SIGNER, trust_domain="mesh.example")
    found = verify_delegation(token, [_LEAD_KEY], now=datetime.now(UTC))
    assert thumbprint(found.key) == thumbprint(given_out.key)
    assert replace(found, key=given_out.key) == given_out


def test_what_a_site_verifier_may_say_is_believed_and_bears_its_name(
    world: World, node: Node
) -> None:
    passport = _read(world, node)
    assert passport.result.verifier == "plant-7"
    assert passport.result.tier is Tier.MEASURED
    assert passport.result.expires == passport.ear.expires_at


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"schemes": ("cca", "tpm2")}, "scheme psa; it may judge cca, tpm2"),
        ({"tier_ceiling": Tier.IDENTIFIED}, "names tier measured; it may name identified"),
        ({"not_before": datetime.now(UTC) + timedelta(hours=1)}, "the delegation of Verifier"),
    ],
)
def test_what_it_may_not_say_is_refused_and_not_read_as_less(
    world: World, node: Node, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(AuthorizationError, match=why):
        _read(world, node, **changes)


def test_a_result_ends_with_the_delegation_it_stands_on(world: World, node: Node) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=30)
    trusted = TrustedVerifier.delegated(_delegation(world, not_after=end))
    digest = hashlib.sha256(node.svid.spki).digest()
    reader = PassportReader([trusted])
    now = datetime.now(UTC)
    assert reader.read(node.passport, key_digest=digest, now=now).result.expires == end
    # Also one that was read before.
    with pytest.raises(AuthorizationError, match="the delegation of Verifier"):
        reader.read(node.passport, key_digest=digest, now=end)


def test_results_count_at_the_site_and_elsewhere_only_where_that_is_wanted(world: World) -> None:
    delegation = _delegation(world)
    delegation.require_site("plant-7")
    delegation.require_site("plant-8", elsewhere=True)
    for other in ("plant-8", ""):
        with pytest.raises(AuthorizationError, match="judges for site plant-7"):
            delegation.require_site(other)


def test_a_delegation_by_somebody_else_is_refused(world: World) -> None:
    stranger = LocalSigner(ec.generate_private_key(ec.SECP256R1()), "lead-1")
    token = _delegation(world).sign(stranger, trust_domain="mesh.example")
    with pytest.raises(SignatureError):
        verify_delegation(token, [_LEAD_KEY], now=datetime.now(UTC))
    with pytest.raises(SignatureError):
        verify_delegation(token, [], now=datetime.now(UTC))


def test_a_site_verifier_cannot_pass_its_delegation_on(world: World) -> None:
    delegation = _delegation(world, key=_LEAD_KEY)
    token = delegation.sign(_SIGNER, trust_domain="mesh.example")
    with pytest.raises(SignatureError, match="bounds nothing"):
        verify_delegation(token, [_LEAD_KEY], now=datetime.now(UTC))


def test_another_token_of_the_same_key_is_no_delegation(world: World) -> None:
    token = _delegation(world).sign(_SIGNER, trust_domain="mesh.example")
    _, claims = verify_jwt(token, [_LEAD_KEY])
    with pytest.raises(UnsupportedError):
        verify_delegation(sign_jwt(claims, _SIGNER), [_LEAD_KEY], now=datetime.now(UTC))


@pytest.mark.parametrize("days", [-1, 8])
def test_a_delegation_out_of_its_time_is_refused(world: World, days: int) -> None:
    token = _delegation(world).sign(_SIGNER, trust_domain="mesh.example")
    with pytest.raises(FreshnessError):
        verify_delegation(token, [_LEAD_KEY], now=datetime.now(UTC) + timedelta(days=days))


def _without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda claims: claims.pop(name)


@pytest.mark.parametrize(
    "change",
    [
        _without("exp"),
        _without("nbf"),
        _without("cnf"),
        _without("site"),
        _without("sub"),
        _without("tier_ceiling"),
        lambda claims: claims.update(schemes=[]),
        lambda claims: claims.update(schemes="psa"),
        lambda claims: claims.update(schemes=["psa", "psa"]),
        lambda claims: claims.update(site=""),
        lambda claims: claims.update(tier_ceiling="excellent"),
        lambda claims: claims.update(exp=claims["nbf"] + 32 * 86_400),
        lambda claims: claims["cnf"].update(jwk={"kty": "oct", "k": "AAAA"}),
    ],
)
def test_a_signed_delegation_with_a_wrong_claim_is_refused(
    world: World, change: Callable[[dict[str, Any]], object]
) -> None:
    token = _delegation(world).sign(_SIGNER, trust_domain="mesh.example")
    _, claims = verify_jwt(token, [_LEAD_KEY])
    change(claims)
    changed = sign_jwt(claims, _SIGNER, header={"typ": "troth-delegation+jwt"})
    with pytest.raises((DecodeError, UnsupportedError)):
        verify_delegation(changed, [_LEAD_KEY], now=datetime.now(UTC))


def test_a_delegation_longer_than_its_bound_is_not_read(world: World) -> None:
    token = _delegation(world).sign(_SIGNER, trust_domain="mesh.example")
    with pytest.raises(LimitExceededError):
        verify_delegation(token + "A" * 8192, [_LEAD_KEY], now=datetime.now(UTC))


@pytest.mark.parametrize(
    "changes",
    [
        {"schemes": ()},
        {"site": "a\nb"},
        {"verifier": ""},
        {"not_after": datetime(2020, 1, 1, tzinfo=UTC)},
    ],
)
def test_a_delegation_without_bounds_cannot_be_made(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(ApiMisuseError):
        _delegation(world, **changes)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_whatever_is_sent_is_refused_by_name(token: bytes) -> None:
    with pytest.raises(TrothError):
        verify_delegation(token, [_LEAD_KEY], now=datetime(2026, 1, 1, tzinfo=UTC))
