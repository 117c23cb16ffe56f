# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pytest

from support.evidence import simulate
from troth.errors import ConfigurationError, DecodeError, UnsupportedError
from troth.evidence import example
from troth.evidence.registry import SCHEMES, by_media_type, detect, scheme
from troth.evidence.simulator import CcaOptions, PsaOptions


@pytest.mark.parametrize("name", SCHEMES)
def test_each_scheme_goes_by_the_name_that_it_is_registered_under(name: str) -> None:
    found = scheme(name)
    assert found.name == name
    assert 20 <= found.challenge_size <= 64
    assert found.tier in {"registered", "identified", "measured", "confidential"}
    assert found.media_types


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError, match=r"scheme is 'no-such'; expected one of .*cca.*psa"
    ):
        scheme("no-such")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("psa", PsaOptions()),
        ("psa", PsaOptions(algorithm="HMAC 256/256")),
        ("cca", CcaOptions()),
        ("cca", CcaOptions(wrapper_tag=399)),
    ],
)
def test_evidence_is_recognised(name: str, options: PsaOptions | CcaOptions) -> None:
    assert detect(simulate(options).attest(bytes(64))) == name


@pytest.mark.parametrize("data", [b"", b"\x00", b"{}", b"\x84\x44", b"\xd9\x01", b"-----BEGIN"])
def test_what_nothing_recognises_is_answered_with_the_known_schemes(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"known are .*cca.*psa"):
        detect(data)


@pytest.mark.parametrize("name", SCHEMES)
def test_recognising_never_raises(name: str) -> None:
    recognises = scheme(name).recognises
    for first in range(256):
        for data in (b"", bytes([first]), bytes([first]) * 4, bytes([first, 0xFF, 0, 0x84])):
            assert isinstance(recognises(data), bool)


@pytest.mark.parametrize("name", SCHEMES)
def test_each_media_type_of_a_scheme_leads_to_it(name: str) -> None:
    for media_type in scheme(name).media_types:
        assert by_media_type(media_type) == name


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        ('application/eat+cwt; EAT_profile="tag:psacertified.org,2023:psa#tfm"', "psa"),
        ('Application/EAT-CWT;profile="http://arm.com/psa/2.0.0"', "psa"),
        ('application/eat+cwt;eat_profile="http://arm.com/CCA-SSD/1.0.0"', "cca"),
    ],
)
def test_older_and_looser_spellings_are_understood(media_type: str, name: str) -> None:
    assert by_media_type(media_type) == name


@pytest.mark.parametrize(
    "media_type",
    ["application/eat+cwt", 'application/eat+cwt; eat_profile="urn:other"', "text/plain"],
)
def test_a_media_type_that_no_scheme_has_is_refused(media_type: str) -> None:
    with pytest.raises(UnsupportedError, match="known are application/"):
        by_media_type(media_type)


def test_no_two_schemes_share_a_media_type() -> None:
    types = [media_type for name in SCHEMES for media_type in scheme(name).media_types]
    assert len(types) == len(set(types))


def test_a_scheme_of_ones_own_is_added_by_one_line() -> None:
    schemes = {**SCHEMES, "example": lambda: example.SCHEME}
    assert scheme("example", schemes=schemes) is example.SCHEME
    assert detect(b"\x82\x67example\x40", schemes=schemes) == "example"
    assert by_media_type(example.SCHEME.media_types[0], schemes=schemes) == "example"
    assert "example" not in SCHEMES


def test_no_scheme_is_imported_before_it_is_asked_for() -> None:
    script = (
        "import sys, troth.evidence.registry as registry\n"
        "loaded = [name for name in sys.modules if name.startswith('troth.evidence.')]\n"
        "assert not {f'troth.evidence.{name}' for name in registry.SCHEMES} & set(loaded), loaded\n"
        "registry.scheme('psa')\n"
        "assert 'troth.evidence.psa' in sys.modules\n"
        "assert 'troth.evidence.cca' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
