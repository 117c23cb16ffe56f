# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import inspect

import pytest

from support.appraisal import IDENTITY, NOW
from troth import errors
from troth.errors import TrothError
from troth.formats.ar4si import TrustTier
from troth.verifier.failure import CLAIM_VALUE_BY_ERROR, claim_value, failure_result
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.result import AssuranceTier

CLASSES = [
    each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, TrothError)
]


@pytest.mark.parametrize("error", CLASSES, ids=lambda each: each.__name__)
def test_every_error_class_has_a_claim_value(error: type[TrothError]) -> None:
    value = claim_value(error.__new__(error))
    assert value in (-1, 1, 99)
    direct = error in CLAIM_VALUE_BY_ERROR
    assert direct or any(parent in CLAIM_VALUE_BY_ERROR for parent in error.__mro__[1:3])


@pytest.mark.parametrize(
    ("error", "value", "status"),
    [
        (errors.SignatureError("x"), 99, TrustTier.CONTRAINDICATED),
        (errors.FreshnessError("x"), 99, TrustTier.CONTRAINDICATED),
        (errors.BindingError("x"), 99, TrustTier.CONTRAINDICATED),
        (errors.DecodeError("x", format="f"), 99, TrustTier.CONTRAINDICATED),
        (errors.LimitExceededError(format="f", limit="l", value=1), 99, TrustTier.CONTRAINDICATED),
        (errors.UnsupportedError("x", format="f"), 1, TrustTier.NONE),
        (errors.UnavailableError("x"), -1, TrustTier.NONE),
        (errors.ApiMisuseError("x"), -1, TrustTier.NONE),
    ],
)
def test_all_eight_claims_get_the_errors_value(
    error: TrothError, value: int, status: TrustTier
) -> None:
    result = failure_result(
        error,
        scheme="psa",
        now=NOW,
        verifier=IDENTITY,
        policy=AppraisalPolicy.default(),
        nonce=b"n" * 32,
    )
    (submod,) = result.submods.values()
    assert set(dict(submod.vector.items()).values()) == {value}
    assert len(dict(submod.vector.items())) == 8
    assert result.status is submod.status is status
    assert result.tier is AssuranceTier.REGISTERED
    assert (result.key, result.expires_at) == (None, None)
    ear = result.to_ear()
    assert ear.overall_status is status
    assert ear.keys == ()
    assert ear.submods["psa"].extensions["ear_veraison_policy_claims"] == {"problem": str(error)}
