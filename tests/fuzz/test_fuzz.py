# SPDX-License-Identifier: Apache-2.0
"""Any bytes either decode or raise DecodeError, within the budget; never any other exception."""

from __future__ import annotations

import os

import pytest

from fuzz.harness import Target, fuzz
from fuzz.targets import TARGETS

SEED = 20261125
COUNT = int(os.environ.get("FUZZ_COUNT", "1500"))

# The budget is 10 ms and 20 MB; a busy machine measures the first one several times too high.
MOST_SECONDS = 0.1
MOST_BYTES = 20_000_000


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_any_bytes_decode_or_are_refused_within_the_budget(target: Target) -> None:
    outcome = fuzz(target, seed=SEED, go_on=lambda runs: runs < COUNT)
    for data, what in outcome.failures[:1]:
        pytest.fail(f"{target.name}: bytes.fromhex({data.hex()!r})\n{what}")
    assert outcome.slowest_seconds < MOST_SECONDS, outcome.slowest.hex()
    assert outcome.peak_bytes < MOST_BYTES, outcome.slowest.hex()


def test_the_fuzzer_finds_a_decoder_that_lets_another_exception_out() -> None:
    def careless(data: bytes) -> object:
        return data[3]

    outcome = fuzz(Target("careless", careless, [b"abcd"]), seed=1, go_on=lambda runs: runs < 100)
    assert outcome.failures
    assert "IndexError" in outcome.failures[0][1]


def test_the_fuzzer_repeats_a_run_from_its_seed() -> None:
    def run(seed: int) -> list[bytes]:
        seen: list[bytes] = []
        target = Target("collect", seen.append, [b"\x83\x01\x02\x03", b'{"a": 1}'])
        fuzz(target, seed=seed, go_on=lambda runs: runs < 50)
        return seen[:50]

    assert run(1) == run(1)
    assert run(1) != run(2)
