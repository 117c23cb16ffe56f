# SPDX-License-Identifier: Apache-2.0
"""Evaluates Appraisal Policies in processes that may hang or die without taking us along.

rego-cpp has no time limit, and some legal Rego crashes it. A policy is the operator's, but what it
computes depends on claims that come from outside. So each evaluation runs in a worker process with
a deadline and a memory limit; a worker that misses its deadline is killed and replaced, and the
policy's outcome is a failure, which is contraindicated.

Messages on the pipes are four octets of length, big-endian, and JSON. This module is also the
worker's program: `python -m troth.adapters.rego_worker`.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import IO, Final, Self

import msgspec

from troth.verifier.policy import POLICY_DEADLINE_SECONDS
from troth.verifier.rego import DirectEvaluator, Evaluation, Program

__all__ = ["MAX_WORKERS", "WORKER_MEMORY_BYTES", "WorkerEvaluator"]

MAX_WORKERS: Final = 4
"""Worker processes of one evaluator; each takes about 30 MB."""

WORKER_MEMORY_BYTES: Final = 512 << 20
"""Resident memory of one worker. Looked at while it works: rego-cpp's allocator reserves 256 GiB of
address space at its start, so no resource limit fits."""

_LOOK_SECONDS: Final = 0.02

START_DEADLINE_SECONDS: Final = 20.0
"""How long a worker may take to start, on a machine that has other things to do."""

_LENGTH: Final = 4
_MAX_MESSAGE: Final = 1 << 24
_READY: Final = b"ready"


class _Request(msgspec.Struct):
    digest: str
    document: dict[str, object]
    modules: list[tuple[str, str]] | None = None
    entrypoint: str = ""
    data: str = ""


class _Reply(msgspec.Struct):
    value: object = None
    failure: str = ""
    module: str = ""
    offset: int = -1


class WorkerEvaluator:
    """A `RegoEvaluator` with a deadline. May be used from several threads; close it.

    The deadline does not include the start of a worker, which happens once and after each kill.
    """

    def __init__(
        self, *, deadline_seconds: float = POLICY_DEADLINE_SECONDS, workers: int = MAX_WORKERS
    ) -> None:
        """Start nothing yet.

        Args:
            deadline_seconds: for one evaluation, compilation included.
            workers: how many may be kept; more callers at a time start more, which are ended
                after use.
        """
        self._deadline = deadline_seconds
        self._workers = workers
        self._lock = Lock()
        self._idle: list[_Worker] = []
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def evaluate(self, program: Program, document: Mapping[str, object]) -> Evaluation:
        """Return the value of the program's entrypoint for this input document."""
        try:
            request = _Request(program.digest, dict(document))
            encoded = msgspec.json.encode(request)
        except (TypeError, ValueError, RecursionError) as exc:
            return Evaluation(failure=f"the input document cannot be given to a policy: {exc}")
        try:
            worker = self._take()
        except OSError as exc:
            return Evaluation(failure=f"no process to evaluate the policy in: {exc}")
        try:
            reply = worker.ask(program, request, encoded, self._deadline)
        except TimeoutError:
            worker.kill()
            return Evaluation(
                failure=f"the evaluation took longer than {self._deadline:g} s "
                "(POLICY_DEADLINE_SECONDS)"
            )
        except MemoryError:
            worker.kill()
            return Evaluation(
                failure=f"the evaluation took more than WORKER_MEMORY_BYTES={WORKER_MEMORY_BYTES}"
            )
        except (OSError, EOFError, ValueError) as exc:
            worker.kill()
            detail = f": {exc}" if str(exc) else ""
            return Evaluation(failure=f"the policy's evaluation crashed{detail}")
        except BaseException:
            worker.kill()
            raise
        self._give_back(worker)
        return Evaluation(
            value=reply.value, failure=reply.failure, module=reply.module, offset=reply.offset
        )

    def warm_up(self) -> None:
        """Start one worker now instead of at the first evaluation.

        Raises:
            OSError: it does not start.
        """
        self._give_back(self._take())

    def close(self) -> None:
        """End all workers."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _take(self) -> _Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return _Worker()

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < self._workers:
                self._idle.append(worker)
                return
        worker.kill()


class _Worker:
    """One process and its two pipes; for one caller at a time."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: it does not start, or not in time.
        """
        self._programs: set[str] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "troth.adapters.rego_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=_environment(),
            # Not in our process group: Ctrl-C ends us, and we end it.
            start_new_session=True,
        )
        try:
            ready = self._read(time.monotonic() + START_DEADLINE_SECONDS) == _READY
        except (TimeoutError, EOFError, MemoryError):
            ready = False
        except BaseException:
            self.kill()
            raise
        if not ready:
            self.kill()
            raise OSError("the worker did not start")

    def ask(
        self, program: Program, request: _Request, encoded: bytes, deadline_seconds: float
    ) -> _Reply:
        """Return the answer.

        Raises:
            TimeoutError: none in time.
            MemoryError: it takes too much.
            OSError, EOFError: the process is gone.
            ValueError: it does not speak our language.
        """
        deadline = time.monotonic() + deadline_seconds
        if program.digest not in self._programs:
            request.modules = list(program.modules)
            request.entrypoint, request.data = program.entrypoint, program.data
            encoded = msgspec.json.encode(request)
            self._programs.add(program.digest)
        self._write(encoded, deadline)
        return msgspec.json.decode(self._read(deadline), type=_Reply)

    def kill(self) -> None:
        """End the process at once and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _look(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise TimeoutError
        if _resident_bytes(self._process.pid) > WORKER_MEMORY_BYTES:
            raise MemoryError

    def _write(self, message: bytes, deadline: float) -> None:
        pipe = _pipe(self._process.stdin)
        data = memoryview(len(message).to_bytes(_LENGTH, "big") + message)
        while data:
            if not _ready(pipe, select.POLLOUT, deadline):
                raise TimeoutError
            # A pipe that is ready takes this much without blocking (POSIX: PIPE_BUF).
            data = data[os.write(pipe, data[: select.PIPE_BUF]) :]

    def _read(self, deadline: float) -> bytes:
        pipe = _pipe(self._process.stdout)

        def receive(size: int) -> bytes:
            while not _ready(pipe, select.POLLIN, min(deadline, time.monotonic() + _LOOK_SECONDS)):
                self._look(deadline)
            return os.read(pipe, size)

        return _message(receive)


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:  # noqa: PTH123 - 50 times a second
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0  # gone, or no such file system: the deadline remains


def _environment() -> dict[str, str]:
    # What Python needs to find itself, and nothing that a policy could read out.
    kept = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _pipe(stream: IO[bytes] | None) -> int:
    if stream is None:  # pragma: no cover - both were asked for
        raise OSError("no pipe")
    return stream.fileno()


def _ready(pipe: int, event: int, until: float) -> bool:
    poll = select.poll()
    poll.register(pipe, event)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))


def _message(receive: Callable[[int], bytes]) -> bytes:
    """Read one message; `receive` returns at most that many octets, none at the end."""
    size = int.from_bytes(_exactly(receive, _LENGTH), "big")
    if size > _MAX_MESSAGE:
        raise ValueError("a message that is too long")
    return _exactly(receive, size)


def _exactly(receive: Callable[[int], bytes], size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = receive(min(size, 1 << 16))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _serve() -> None:
    """Answer until the pipe is closed. The worker's main program."""
    import resource  # noqa: PLC0415 - the worker's alone

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # rego-cpp prints on standard output what a policy prints; the answers need it undisturbed.
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    evaluator = DirectEvaluator()
    programs: dict[str, Program] = {}
    decoder = msgspec.json.Decoder(_Request)
    _answer(answers, _READY)
    while True:
        try:
            request = decoder.decode(_message(lambda size: os.read(0, size)))
        except EOFError:
            return
        if request.modules is not None:
            programs[request.digest] = Program(
                tuple(request.modules), request.entrypoint, request.data, request.digest
            )
        result = evaluator.evaluate(programs[request.digest], request.document)
        reply = _Reply(result.value, result.failure, result.module, result.offset)
        _answer(answers, msgspec.json.encode(reply))


def _answer(pipe: int, message: bytes) -> None:
    data = len(message).to_bytes(_LENGTH, "big") + message
    while data:
        data = data[os.write(pipe, data) :]


if __name__ == "__main__":
    _serve()
