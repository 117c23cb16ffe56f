# SPDX-License-Identifier: Apache-2.0
"""What is read out of an Envoy program's words; scripts play Envoy here."""

from __future__ import annotations

from pathlib import Path

import pytest

from troth.adapters.envoy_trial import envoy_version, validate_configuration
from troth.errors import ProxyError


def program(directory: Path, script: str) -> Path:
    path = directory / "envoy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_version_is_the_one_that_the_program_says(tmp_path: Path) -> None:
    words = "envoy  version: 0a1b2c/1.39.3/Clean/RELEASE/BoringSSL"
    assert envoy_version(program(tmp_path, f"echo '{words}'")) == "1.39.3"


@pytest.mark.parametrize("words", ["hello", "version: 1.39.3", ""])
def test_a_program_that_says_no_version_is_no_envoy(tmp_path: Path, words: str) -> None:
    with pytest.raises(ProxyError, match="which version"):
        envoy_version(program(tmp_path, f"echo '{words}'"))


def test_a_program_that_does_not_run_is_named(tmp_path: Path) -> None:
    path = program(tmp_path, "true")
    path.chmod(0o644)
    with pytest.raises(ProxyError, match=f"{path} does not run"):
        envoy_version(path)


def test_the_configuration_is_handed_over_and_its_end_is_the_answer(tmp_path: Path) -> None:
    script = 'test "$1 $2 $3" = "--mode validate --config-path" && grep -q yes "$4"'
    path = program(tmp_path, script)
    assert validate_configuration(path, {"a": "yes"}).accepted
    assert not validate_configuration(path, {"a": "no"}).accepted


def test_the_reason_is_in_envoys_words_without_its_noise(tmp_path: Path) -> None:
    lines = (
        "[2026-11-25 10:00:00.000][7][warning][misc] [source/a.cc:1] an old field\n"
        "[2026-11-25 10:00:00.000][7][critical][main] [source/b.cc:2] "
        "error initializing configuration '/tmp/x': no  such   field\n"
    )
    trial = validate_configuration(program(tmp_path, f"printf '%s' \"{lines}\" >&2; exit 1"), {})
    assert not trial.accepted
    assert trial.reason == "no such field"
    assert trial.warnings == ("an old field",)


def test_a_silent_failure_is_a_refusal_too(tmp_path: Path) -> None:
    assert not validate_configuration(program(tmp_path, "exit 1"), {}).accepted
