# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from support.attested_pair import der_chain, shown_chain
from support.attested_world import World
from troth.errors import ChainError, DecodeError
from troth.identity.hardware_key import has_hardware_key
from troth.identity.spiffe_id import TrustDomain
from troth.identity.svid_verifier import SvidVerifier
from troth.identity.trust_bundle import TrustBundle
from troth.testing.lab import SoftwareDevice


def _now() -> datetime:
    return datetime.now(UTC)


class Bundles:
    """A source whose bundles a test changes, and which counts how often it is asked."""

    def __init__(self, world: World) -> None:
        self.current: TrustBundle | None = world.authority.bundle()

    def bundle(self, trust_domain: TrustDomain) -> TrustBundle | None:
        known = self.current is not None and self.current.trust_domain == trust_domain
        return self.current if known else None


def test_a_chain_that_comes_back_is_not_verified_again() -> None:
    world = World()
    verifier = SvidVerifier(Bundles(world))
    chain = shown_chain(world.join("edge"))
    assert verifier.verify(chain, now=_now()) is verifier.verify(list(chain), now=_now())
    assert len(verifier) == 1


def test_a_kept_chain_ends_when_it_ends() -> None:
    world = World()
    verifier = SvidVerifier(Bundles(world))
    svid = world.join("edge").svid
    verifier.verify(der_chain(svid), now=_now())
    assert verifier.verify(der_chain(svid), now=svid.not_after)
    for moment in (svid.not_after + timedelta(seconds=1), svid.not_before - timedelta(seconds=1)):
        verifier.verify(der_chain(svid), now=_now())
        with pytest.raises(ChainError):
            verifier.verify(der_chain(svid), now=moment)


def test_another_bundle_forgets_what_the_old_one_vouched_for() -> None:
    world = World()
    bundles = Bundles(world)
    verifier = SvidVerifier(bundles)
    chain = shown_chain(world.join("edge"))
    verifier.verify(chain, now=_now())
    bundles.current = World().authority.bundle()
    with pytest.raises(ChainError):
        verifier.verify(chain, now=_now())
    bundles.current = None
    with pytest.raises(ChainError):
        verifier.verify(chain, now=_now())
    assert len(verifier) == 0
    bundles.current = world.authority.bundle()
    assert verifier.verify(chain, now=_now())


def test_what_is_kept_is_bounded_and_refusals_are_not_kept() -> None:
    world, stranger = World(), World()
    verifier = SvidVerifier(Bundles(world), size=2)
    for name in ("a", "b", "c"):
        verifier.verify(shown_chain(world.join(name)), now=_now())
    assert len(verifier) == 2
    with pytest.raises(ChainError):
        verifier.verify(shown_chain(stranger.join("d")), now=_now())
    with pytest.raises(DecodeError):
        verifier.verify([world.authority.certificate.public_bytes(Encoding.DER)], now=_now())
    with pytest.raises(DecodeError):
        verifier.verify([b"not a certificate"], now=_now())
    assert len(verifier) == 2


def test_a_key_in_hardware_is_marked_in_its_certificate_and_no_other_is() -> None:
    world = World()
    node = world.join("edge", device=SoftwareDevice())
    assert node.proof_key is not None
    assert has_hardware_key(node.proof_key.svid)
    assert not has_hardware_key(node.svid)
    assert not has_hardware_key(world.join("plain", svid_only=True).svid)
