# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from troth.errors import DecodeError
from troth.evidence.media_type import refuse_other_profile


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "application/eat+cwt",
        "application/psa-attestation-token",
        'application/eat+cwt; eat_profile="urn:a"',
        'APPLICATION/EAT-CWT;PROFILE="urn:a"',
        'application/eat-collection; profile="urn:b"',
    ],
)
def test_a_media_type_that_agrees_or_says_nothing_passes(media_type: str) -> None:
    refuse_other_profile(media_type, "urn:a", "urn:b", format="token")


def test_a_media_type_of_another_profile_is_refused() -> None:
    with pytest.raises(
        DecodeError, match=r"token: came as .*urn:c.*, but its own profile is urn:a"
    ):
        refuse_other_profile(
            'application/eat+cwt; eat_profile="urn:c"', "urn:a", "urn:b", format="token"
        )


def test_what_is_no_media_type_is_refused() -> None:
    with pytest.raises(DecodeError, match="type/subtype"):
        refuse_other_profile("nonsense", "urn:a", format="token")
