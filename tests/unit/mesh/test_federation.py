# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from support.x509 import sign, signing
from troth.errors import DecodeError
from troth.identity.spiffe_id import SpiffeId, TrustDomain
from troth.identity.trust_bundle import TrustBundle
from troth.mesh.federation import (
    DEFAULT_REFRESH,
    LONGEST_REFRESH,
    SHORTEST_REFRESH,
    EndpointProfile,
    Federation,
    refresh_interval,
    takes_over,
)

DOMAIN = TrustDomain("other.example")
BUNDLE = TrustBundle(
    trust_domain=DOMAIN, x509_authorities=[sign(signing(uris=("spiffe://other.example",)))]
)
SERVER = SpiffeId.decode("spiffe://other.example/server")


def web(**fields: Any) -> Federation:
    values: dict[str, Any] = {
        "trust_domain": DOMAIN,
        "endpoint_url": "https://bundles.example/other",
        "profile": EndpointProfile.HTTPS_WEB,
    }
    return Federation(**(values | fields))


def by_svid(**fields: Any) -> Federation:
    values = {
        "profile": EndpointProfile.HTTPS_SPIFFE,
        "endpoint_spiffe_id": SERVER,
        "bundle": BUNDLE,
    }
    return web(**(values | fields))


def test_a_bundle_may_be_set_by_hand_or_fetched_by_either_profile() -> None:
    Federation(trust_domain=DOMAIN, bundle=BUNDLE)
    assert not web().is_self_serving
    assert by_svid().is_self_serving


def test_the_endpoint_may_be_of_a_third_trust_domain() -> None:
    third = by_svid(endpoint_spiffe_id=SpiffeId.decode("spiffe://hub.example/s"), bundle=None)
    assert not third.is_self_serving


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example",
        "https://a.example:8443/x?y=%20",
        "https://[::1]:1/",
        "https://10.0.0.1/bundle.json",
    ],
)
def test_an_endpoint_is_an_https_url(url: str) -> None:
    assert web(endpoint_url=url).endpoint_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example/",
        "https://user@a.example/",
        "https://user:secret@a.example/",
        "https:///x",
        "https://a.example/x y",
        "https://a.example/\n",
        "https://a.example\\@b.example/",
        "file:///etc/passwd",
        "https://a.example/" + "x" * 2048,
    ],
)
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(DecodeError, match=r"^field endpoint_url: "):
        web(endpoint_url=url)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"profile": None}, "profile"),
        ({"endpoint_spiffe_id": SERVER}, "endpoint_spiffe_id"),
        ({"profile": EndpointProfile.HTTPS_SPIFFE}, "endpoint_spiffe_id"),
        ({"profile": EndpointProfile.HTTPS_SPIFFE, "endpoint_spiffe_id": SERVER}, "bundle"),
        ({"bundle": replace(BUNDLE, trust_domain=TrustDomain("x"))}, "bundle"),
        ({"endpoint_url": ""}, "bundle"),
        ({"endpoint_url": "", "bundle": BUNDLE}, "endpoint_url"),
    ],
)
def test_a_wrong_relationship_is_refused_with_the_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(DecodeError, match=rf"^field {field}: "):
        web(**fields)


@pytest.mark.parametrize(
    ("hint", "interval"),
    [
        (None, DEFAULT_REFRESH),
        (0, DEFAULT_REFRESH),
        (1, SHORTEST_REFRESH),
        (60, timedelta(minutes=1)),
        (2**62, LONGEST_REFRESH),
    ],
)
def test_a_hint_is_followed_within_limits(hint: int | None, interval: timedelta) -> None:
    assert refresh_interval(replace(BUNDLE, refresh_hint_seconds=hint)) == interval


def test_without_a_bundle_the_default_holds() -> None:
    assert refresh_interval(None) == DEFAULT_REFRESH


def test_a_newer_or_changed_bundle_takes_over_and_an_older_one_does_not() -> None:
    known = replace(BUNDLE, sequence=5)
    assert takes_over(known, None)
    assert not takes_over(known, known)
    assert takes_over(replace(known, sequence=6), known)
    assert takes_over(replace(known, sequence=None), known)
    assert takes_over(replace(known, x509_authorities=()), known)
    with pytest.raises(DecodeError, match="older"):
        takes_over(replace(known, sequence=4), known)
