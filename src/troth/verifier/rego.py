# SPDX-License-Identifier: Apache-2.0
r"""Rego modules compiled and evaluated by rego-cpp, in this process.

What has to be known about rego-cpp (regopy 1.5.2, measured):

- It has no time limit, and some legal Rego crashes the process (a rule that indexes a package by
  a variable). Where bytes from outside decide what is evaluated, run it in a process that may
  die: `troth.adapters.policy_worker` implements the same port.
- It keeps strings as JSON writes them, without adding or removing escapes at its boundary. A
  quotation mark in a claim would end the string in its output and let the claim write the
  verdict. So `"`, `\\` and control characters reach a policy as U+FFFD.
- Integers outside 64 bits are cut without a word: they reach a policy as decimal text.
- Errors of evaluation come as output that is not JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

__all__ = [
    "NOT_COMPILED",
    "DirectEvaluator",
    "Evaluation",
    "Program",
    "RegoEvaluator",
    "is_builtin",
]

MAX_DOCUMENT_DEPTH: Final = 32
"""Levels of an input document. Decoded claims have at most 16, and stand three levels down."""

MAX_OUTPUT_BYTES: Final = 65_536
"""Octets of a policy's output, as JSON."""

NOT_COMPILED: Final = "the policy does not "
"""How failures begin that are about the text of a policy and not about what it was asked."""

_UNSAFE_CHARACTER = re.compile(r'["\\\x00-\x1f\x7f]')
_PARSE_ERROR = re.compile(
    r"\(error \d+:(?P<module>[^|]*)\|(?P<offset>\d+)\|\d+\s+\(errormsg \d+:(?P<message>[^\n]*)\)"
)
_ERROR_MESSAGE = re.compile(r"\(errormsg \d+:(?P<message>[^\n]*)\)")


@dataclass(frozen=True, slots=True)
class Program:
    """Modules and the rule whose value is asked for.

    Attributes:
        modules: (name, text); names are short and plain: they come back in errors.
        entrypoint: path of the rule with slashes, such as "troth_outcome/o".
        data: the base document, JSON.
        digest: identifies all of the above.
    """

    modules: Sequence[tuple[str, str]] = field(repr=False)
    entrypoint: str
    data: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What came of one evaluation.

    Attributes:
        value: the entrypoint's value; None where there was none.
        failure: why there was none, in words; "" where there was one.
        module, offset: where in the text the failure lies, if that is known, else "" and -1.
    """

    value: object = None
    failure: str = ""
    module: str = ""
    offset: int = -1


class RegoEvaluator(Protocol):
    """Evaluates programs. An implementation bounds the time, or says that it does not."""

    def evaluate(self, program: Program, document: Mapping[str, object]) -> Evaluation:
        """Return the value of the program's entrypoint for this input document.

        Never raises for what the program or the document says: failures are values.
        """
        ...


class DirectEvaluator:
    """Evaluates in the caller's thread and process, without a time limit.

    Right for tests, for policies that come with Troth, and inside a process that somebody else
    watches. May be used from several threads.
    """

    def __init__(self) -> None:
        self._idle: dict[str, deque[_Engine]] = {}

    def evaluate(self, program: Program, document: Mapping[str, object]) -> Evaluation:
        """Return the value of the program's entrypoint for this input document."""
        idle = self._idle.setdefault(program.digest, deque())
        try:
            engine = idle.pop()
        except IndexError:
            engine = _Engine(program)
        evaluation = engine.evaluate(document)
        idle.append(engine)
        return evaluation


def is_builtin(name: str) -> bool:
    """Say whether rego-cpp has a builtin function called `name`."""
    return bool(_regopy().Interpreter().is_builtin(name))


class _Engine:
    """One interpreter with one compiled program; for one thread at a time."""

    def __init__(self, program: Program) -> None:
        regopy = _regopy()
        self._native = regopy.rego_shared.rego
        self._entrypoint = program.entrypoint.encode()
        self._interpreter = regopy.Interpreter()
        self._interpreter.log_level = regopy.LogLevel.NONE
        self._failure: Evaluation | None = None
        self._bundle: Any = None
        try:
            self._interpreter.add_data_json(program.data)
            for name, text in program.modules:
                self._interpreter.add_module(name, text)
            self._bundle = self._interpreter.build(None, [program.entrypoint])
        except (regopy.RegoError, ValueError) as exc:
            self._failure = _compile_failure(str(exc))
            return
        if not self._bundle.ok():
            self._failure = Evaluation(failure=f"{NOT_COMPILED}compile")

    def evaluate(self, document: Mapping[str, object]) -> Evaluation:
        if self._failure is not None:
            return self._failure
        native = self._native
        holder = native.regoNewInput()
        try:
            _fill(native, holder, document, MAX_DOCUMENT_DEPTH)
            if native.regoSetInput(self._interpreter._impl, holder):  # noqa: SLF001 - the wrapper's own way copies each string twice
                return Evaluation(failure="the input document was not accepted")
        except (ValueError, OverflowError) as exc:
            return Evaluation(failure=f"the input document cannot be given to a policy: {exc}")
        finally:
            native.regoFreeInput(holder)
        return self._query()

    def _query(self) -> Evaluation:
        import ctypes  # noqa: PLC0415 - only where a policy is evaluated

        native = self._native
        output = native.regoBundleQueryEntrypoint(
            self._interpreter._impl,  # noqa: SLF001 - as above
            self._bundle._impl,  # noqa: SLF001 - as above
            self._entrypoint,
        )
        if not output:
            return Evaluation(failure="the policy could not be evaluated")
        try:
            size = native.regoOutputJSONSize(output)
            if size > MAX_OUTPUT_BYTES:
                return Evaluation(
                    failure=f"the policy's output is longer than MAX_OUTPUT_BYTES={MAX_OUTPUT_BYTES}"
                )
            buffer = ctypes.create_string_buffer(size)
            if native.regoOutputJSON(output, buffer, size):
                return Evaluation(failure="the policy's output could not be read")
            if not native.regoOutputOk(output):
                return Evaluation(
                    failure="the evaluation failed; a common cause is one rule or function with "
                    "two different values"
                )
            return _result(buffer.value)
        finally:
            native.regoFreeOutput(output)


def _regopy() -> Any:  # noqa: ANN401 - regopy has no type information
    import regopy  # noqa: PLC0415 - 14 MB of shared object that only an evaluation needs
    import regopy.rego_shared  # noqa: PLC0415 - as above

    return regopy


def _result(text: bytes) -> Evaluation:
    try:
        output = json.loads(text)
    except ValueError:
        decoded = text.decode(errors="replace")
        if decoded == "undefined":
            return Evaluation(failure="the outcome is undefined")
        found = _ERROR_MESSAGE.search(decoded)
        return Evaluation(failure=found["message"] if found else "the output is not JSON")
    expressions = output.get("expressions") if isinstance(output, dict) else None
    if not isinstance(expressions, list) or len(expressions) != 1:
        return Evaluation(failure="the outcome is undefined")
    return Evaluation(value=expressions[0])


def _compile_failure(report: str) -> Evaluation:
    """Turn rego-cpp's error tree into its innermost message; it lists the innermost first."""
    found = _PARSE_ERROR.search(report)
    if found is None:
        return Evaluation(failure=f"{NOT_COMPILED}compile")
    return Evaluation(
        failure=f"{NOT_COMPILED}parse: {found['message']}",
        module=found["module"],
        offset=int(found["offset"]),
    )


def _fill(native: Any, holder: int, value: object, depth: int) -> None:  # noqa: ANN401 - a ctypes library
    """Push `value` onto rego-cpp's stack of input values."""
    if value is None or isinstance(value, str | int | float | bytes):
        _fill_scalar(native, holder, value)
    elif not depth:
        raise ValueError(f"deeper than MAX_DOCUMENT_DEPTH={MAX_DOCUMENT_DEPTH}")
    elif isinstance(value, Mapping):
        for key, member in value.items():
            native.regoInputString(holder, _safe(str(key)))
            _fill(native, holder, member, depth - 1)
            native.regoInputObjectItem(holder)
        native.regoInputObject(holder, len(value))
    elif isinstance(value, list | tuple):
        for member in value:
            _fill(native, holder, member, depth - 1)
        native.regoInputArray(holder, len(value))
    else:
        raise ValueError(f"it holds a {type(value).__name__}")


def _fill_scalar(native: Any, holder: int, value: str | float | bytes | None) -> None:  # noqa: ANN401 - as above
    if isinstance(value, str):
        native.regoInputString(holder, _safe(value))
    elif isinstance(value, bool):
        native.regoInputBoolean(holder, value)
    elif value is None:
        native.regoInputNull(holder)
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        native.regoInputInt(holder, value)
    elif isinstance(value, float) and math.isfinite(value):
        native.regoInputFloat(holder, value)
    else:
        text = value.hex() if isinstance(value, bytes) else str(value)
        native.regoInputString(holder, text.encode())


def _safe(text: str) -> bytes:
    if _UNSAFE_CHARACTER.search(text):
        text = _UNSAFE_CHARACTER.sub("\ufffd", text)
    return text.encode()
