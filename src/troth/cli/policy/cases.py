# SPDX-License-Identifier: Apache-2.0
"""Files of test cases for `troth policy test`; docs/reference/policy.md describes their form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from troth.cli.policy_files import DOCUMENT_SUFFIXES, read_document
from troth.control_plane.config_file import convert_config
from troth.errors import ConfigurationError, DecodeError
from troth.verifier.case_document import CaseDocument
from troth.verifier.policy_case import Expectation

__all__ = ["AppraisalOptions", "PolicyCase", "read_cases"]


class AppraisalOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How Evidence of a case is appraised; as the options of `troth verify`.

    Files are found from the folder of the case.
    """

    scheme: str = "auto"
    nonce: str = ""
    at: str = ""
    reference_values: list[str] = []
    trust_anchors: list[str] = []
    trust_vendors: list[str] = []
    corim_keys: list[str] = []
    collateral: str = ""
    allow_test_keys: bool = False
    allow_simulator: bool = False


class _Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One case as it is written."""

    name: str
    expect: Expectation
    case: CaseDocument | list[CaseDocument] | None = None
    evidence: str = ""
    appraisal: AppraisalOptions = AppraisalOptions()


class _CaseFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole file, its defaults put into the cases."""

    cases: list[_Case]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCase:
    """One test case.

    Attributes:
        name: says in words what is tested.
        file: where it stands.
        asked: what the policy is asked, one for each claims set; empty where Evidence says it.
        evidence: file of Evidence, or None.
        appraisal: how it is appraised.
        expected: what has to be concluded.
    """

    name: str
    file: Path
    asked: Sequence[CaseDocument]
    evidence: Path | None
    appraisal: AppraisalOptions
    expected: Expectation


def read_cases(paths: Sequence[str]) -> list[PolicyCase]:
    """Return the cases in files and folders, folders with all that is below them.

    Raises:
        ConfigurationError: a file is not as described, or there is no case at all: a test of
            nothing must not pass.
    """
    cases = [case for path in _files(paths) for case in _cases(path)]
    if not cases:
        raise ConfigurationError(
            source=", ".join(paths), accepted=f"cases in files *{', *'.join(DOCUMENT_SUFFIXES)}"
        )
    return cases


def _files(paths: Sequence[str]) -> Iterator[Path]:
    for name in paths:
        path = Path(name)
        if path.is_dir():
            yield from sorted(
                each
                for each in path.rglob("*")
                if each.suffix in DOCUMENT_SUFFIXES and each.is_file()
            )
        else:
            yield path


def _cases(path: Path) -> Iterator[PolicyCase]:
    file = convert_config(_with_defaults(read_document(path), path), _CaseFile, source=str(path))
    for number, written in enumerate(file.cases):
        key = f"cases[{number}]"
        if (written.case is None) is (not written.evidence):
            raise ConfigurationError(
                source=str(path), key=key, accepted="exactly one of case and evidence"
            )
        try:
            written.expect.check()
        except DecodeError as exc:
            raise ConfigurationError(
                source=str(path), key=f"{key}.expect", accepted=f"an expectation ({exc})"
            ) from exc
        asked = written.case if isinstance(written.case, list) else [written.case]
        yield PolicyCase(
            name=written.name,
            file=path,
            asked=[each for each in asked if each is not None],
            evidence=path.parent / written.evidence if written.evidence else None,
            appraisal=written.appraisal,
            expected=written.expect,
        )


def _with_defaults(tree: object, path: Path) -> object:
    """Put what `defaults` says into every case that does not say it itself."""
    if not isinstance(tree, dict) or "cases" not in tree:
        # A file with one case and nothing around it.
        tree = {"cases": [tree]}
    defaults: object = tree.get("defaults", {})
    if not isinstance(defaults, dict) or not set(defaults) <= {"case", "appraisal"}:
        raise ConfigurationError(
            source=str(path), key="defaults", accepted="a table with case, appraisal or both"
        )
    cases = tree["cases"]
    filled = [_filled(case, defaults) for case in cases] if isinstance(cases, list) else cases
    return {**{name: each for name, each in tree.items() if name != "defaults"}, "cases": filled}


def _filled(case: object, defaults: Mapping[str, Any]) -> object:
    if not isinstance(case, dict):
        return case
    filled = dict(case)
    for name, default in defaults.items():
        if name == "case" and "case" not in case:
            continue
        present = case.get(name, {})
        if isinstance(present, list):
            filled[name] = [
                {**default, **each} if isinstance(each, dict) else each for each in present
            ]
        elif isinstance(present, dict) and isinstance(default, dict):
            filled[name] = {**default, **present}
    return filled
