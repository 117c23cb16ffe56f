# SPDX-License-Identifier: Apache-2.0
import inspect

import pytest

from troth import errors
from troth.tls.asyncio.driver import AttestationRefusedError
from troth.tls.core.exchange import Ended
from troth.tls.core.messages import Verdict
from troth.tls.payload import NothingToShowError
from troth.tls.verdicts import VERDICTS, verdict_of

CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.TrothError) and kind is not errors.TrothError
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_of_error_has_its_verdict(kind: type[errors.TrothError]) -> None:
    assert any(issubclass(kind, listed) for listed in VERDICTS)


def test_what_is_wrong_with_us_is_told_as_unavailable_and_nothing_more() -> None:
    assert verdict_of(errors.ApiMisuseError("x")) is Verdict.UNAVAILABLE
    assert verdict_of(errors.UnavailableError("x")) is Verdict.UNAVAILABLE


def test_the_most_specific_class_decides() -> None:
    assert verdict_of(errors.FreshnessError("x")) is Verdict.NOT_FRESH
    assert verdict_of(errors.SignatureError("x")) is Verdict.REFUSED
    assert verdict_of(errors.LimitExceededError(format="f", limit="l", value=1)) is (
        Verdict.MALFORMED
    )
    assert verdict_of(NothingToShowError("x")) is Verdict.REFUSED
    assert verdict_of(AttestationRefusedError(Ended(Verdict.TIMEOUT, "x", by_peer=False))) is (
        Verdict.REFUSED
    )


def test_no_error_is_told_as_accepted() -> None:
    assert Verdict.ACCEPTED not in VERDICTS.values()
