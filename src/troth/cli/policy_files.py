# SPDX-License-Identifier: Apache-2.0
"""What the commands read and how they evaluate: policies, and documents in YAML or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from troth.cli.inputs import read_operator_file
from troth.errors import ConfigurationError, DecodeError
from troth.formats.limits import RIM_LIMITS
from troth.formats.strict_json import decode_json
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.rego import DirectEvaluator, RegoEvaluator

__all__ = ["DOCUMENT_SUFFIXES", "evaluator_for", "read_document", "read_policy"]

DOCUMENT_SUFFIXES = (".yaml", ".yml", ".json")


def read_policy(path: str) -> AppraisalPolicy:
    """Return the policy in a file.

    Raises:
        ConfigurationError: it cannot be read, or is not UTF-8. What is in it is not looked at.
    """
    try:
        text = read_operator_file(path).decode()
    except UnicodeDecodeError as exc:
        raise ConfigurationError(source=path, accepted="Rego in UTF-8") from exc
    return AppraisalPolicy.from_text(text, name=Path(path).name)


@contextmanager
def evaluator_for(*, custom: bool = True) -> Iterator[RegoEvaluator]:
    """Give an evaluator: with a deadline for a policy that somebody wrote, which may loop or crash.

    Args:
        custom: it is not only the built-in policy that is evaluated.
    """
    if not custom:
        yield DirectEvaluator()
        return
    from troth.adapters.rego_worker import WorkerEvaluator  # noqa: PLC0415 - only where needed

    with WorkerEvaluator(workers=1) as evaluator:
        yield evaluator


def read_document(path: Path) -> object:
    """Return what a YAML or JSON file says, a name that stands twice refused.

    Raises:
        ConfigurationError: it cannot be read, or is neither.
    """
    data = read_operator_file(str(path))
    if path.suffix == ".json":
        try:
            return decode_json(data, format="JSON", limits=RIM_LIMITS)
        except DecodeError as exc:
            raise ConfigurationError(source=str(path), accepted=f"JSON ({exc})") from exc
    try:
        value: object = yaml.load(data, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        words = " ".join(str(exc).split())
        raise ConfigurationError(source=str(path), accepted=f"YAML ({words})") from exc
    return value


class _Loader(yaml.SafeLoader):
    """YAML in which times stay text, and a name that stands twice is an error."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own way
        first: [each for each in resolvers if each[0] != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002, ANN401 - PyYAML's signature
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} stands twice", node.value[position][0].start_mark
                )
        return super().construct_mapping(node, deep=deep)
