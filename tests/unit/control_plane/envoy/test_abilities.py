# SPDX-License-Identifier: Apache-2.0
"""What is concluded about an Envoy from what it accepts; a real one is asked in tests/interop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from troth.adapters.envoy_trial import Trial
from troth.control_plane.envoy.abilities import Abilities, examine

# A text that only the configuration of this ability has.
MARKS = {
    "module": "DynamicModuleNetworkFilter",
    "internal": "internal_listener",
    "ext_authz": "ext_authz.v3.ExtAuthz",
    "spiffe": "SPIFFECertValidatorConfig",
}


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "gate.so"
    path.touch()
    return path


def ask(module: Path, *lacking: str, asked: list[Any] | None = None, **fields: Any) -> Abilities:
    """Examine an Envoy that lacks these abilities."""

    def attempt(config: dict[str, Any]) -> Trial:
        if asked is not None:
            asked.append(config)
        text = json.dumps(config)
        missing = [name for name in lacking if MARKS[name] in text]
        return Trial(accepted=not missing, reason=" ".join(missing))

    return examine("1.40.0", module=module, attempt=attempt, **fields)


def test_an_envoy_that_accepts_all_at_once_is_asked_once(module: Path) -> None:
    asked: list[Any] = []
    found = ask(module, asked=asked)
    assert found.profile == "gate"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("lacking", "profile"),
    [
        (["module"], "no-code"),
        (["internal"], "no-code"),
        (["ext_authz"], "gate"),
        (["module", "ext_authz"], "none"),
        (["spiffe"], "none"),
    ],
)
def test_the_profile_follows_from_what_is_lacking(
    module: Path, lacking: list[str], profile: str
) -> None:
    found = ask(module, *lacking)
    assert found.profile == profile
    absent = {each.name for each in found.abilities if not each.present}
    assert absent == set(lacking)
    assert all(each.why for each in found.abilities if not each.present)
    report = found.to_json()
    assert report["profile"] == profile


def test_a_version_that_was_never_tried_is_said_to_be_one(module: Path) -> None:
    assert not ask(module).warnings
    found = examine("2.0.0", module=module, attempt=lambda _: Trial(accepted=True))
    assert found.warnings == ("not tested with Envoy 2.0.0",)
    assert found.profile == "gate", "what it accepts counts"


def test_without_a_module_the_gate_is_not_possible_and_the_reason_says_so(tmp_path: Path) -> None:
    found = ask(tmp_path / "absent.so")
    assert found.profile == "no-code"
    (lacking,) = [each for each in found.abilities if not each.present]
    assert "absent.so" in lacking.why


def test_an_envoy_whose_messages_cannot_be_read_takes_no_profile(module: Path) -> None:
    assert ask(module, descriptors="it is a script").profile == "none"
