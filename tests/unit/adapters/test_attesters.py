# SPDX-License-Identifier: Apache-2.0
"""What is looked for, what is found, and which Attester is taken."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from troth.adapters import attesters
from troth.adapters.attesters import (
    KINDS,
    PROOFS,
    AttesterSettings,
    FoundAttester,
    find_attesters,
    open_attester,
)
from troth.adapters.parsec import ENDPOINT_VARIABLE, PARSEC_SOCKET, parsec_socket, ping
from troth.errors import ConfigurationError, UnavailableError
from troth.evidence.registry import SCHEMES
from troth.evidence.simulator import PsaOptions, SimulatedPlatform, to_json

PING = bytes.fromhex("10a7c05e1e00010000000000000000000000000000000000000000000100000000000000")
PONG = bytes.fromhex("10a7c05e1e000100000000000000000000000000000002000000000001000000000000000801")


def settings(root: Path, **given: object) -> AttesterSettings:
    return AttesterSettings(**{"root": root, "parsec": root / "parsec.sock", **given})  # type: ignore[arg-type]


def found(root: Path, **given: object) -> dict[str, FoundAttester]:
    return {each.kind: each for each in find_attesters(settings(root, **given))}


def device(root: Path, name: str) -> Path:
    path = root / "dev" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    path = tmp_path / "device.json"
    path.write_text(to_json(SimulatedPlatform.create(PsaOptions(), random=os.urandom)))
    return path


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose name leaves room for that of a socket."""
    path = Path(tempfile.mkdtemp(prefix="troth"))
    yield path
    shutil.rmtree(path)


def test_a_machine_with_nothing_says_why_for_each_kind(tmp_path: Path) -> None:
    each = found(tmp_path)
    assert set(each) == {*KINDS, "parsec"}
    assert not any(one.usable or one.proof for one in each.values())
    assert all(one.detail for one in each.values())
    with pytest.raises(UnavailableError) as caught:
        open_attester("auto", settings(tmp_path))
    for kind in ("tsm", "nsm", "tpm"):
        assert f"{kind}: " in str(caught.value)
        with pytest.raises(UnavailableError):
            open_attester(kind, settings(tmp_path))


def test_an_unknown_kind_is_wrong_usage(tmp_path: Path) -> None:
    for kind in ("parsec", "sgx", ""):
        with pytest.raises(ConfigurationError):
            open_attester(kind, settings(tmp_path))


def test_an_enclave_is_found_and_taken_before_a_tpm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attesters, "has_tools", lambda: True)
    device(tmp_path, "nsm")
    device(tmp_path, "tpmrm0")
    each = found(tmp_path, state=tmp_path / "ak.json")
    assert (each["nsm"].usable, each["tpm"].usable) == (True, True)
    assert each["nsm"].proof == PROOFS["nitro"]
    taken = open_attester("auto", settings(tmp_path, state=tmp_path / "ak.json"))
    assert taken.scheme == "nitro"
    assert not (tmp_path / "ak.json").exists()


@pytest.mark.parametrize(
    ("given", "installed", "words"),
    [
        ({"state": "ak.json"}, False, "neither tpm2-pytss nor tpm2-tools"),
        ({}, True, "no file is named"),
    ],
)
def test_a_tpm_that_cannot_be_used_yet_says_what_it_needs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    installed: bool,  # noqa: FBT001 - a parameter of the test
    words: str,
) -> None:
    monkeypatch.setattr(attesters, "has_tools", lambda: installed)
    monkeypatch.setattr(attesters, "has_esys", lambda: False)
    device(tmp_path, "tpmrm0")
    tpm = found(tmp_path, **{name: tmp_path / text for name, text in given.items()})["tpm"]
    assert not tpm.usable
    assert words in tpm.detail
    assert tpm.remedy
    assert tpm.proof == PROOFS["tpm2"]


def test_a_tpm_behind_another_transport_needs_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attesters, "has_tools", lambda: True)
    tpm = found(tmp_path, tcti="swtpm:path=/run/swtpm.sock", state=tmp_path / "ak")["tpm"]
    assert (tpm.usable, tpm.source) == (True, "swtpm:path=/run/swtpm.sock")


def test_the_simulator_is_taken_by_its_name_alone(tmp_path: Path, simulated: Path) -> None:
    each = found(tmp_path, device=simulated)["simulator"]
    assert (each.usable, each.scheme) == (True, "psa")
    assert each.detail.startswith("INSECURE")
    with pytest.raises(UnavailableError):
        open_attester("auto", settings(tmp_path, device=simulated))
    assert open_attester("simulator", settings(tmp_path, device=simulated)).scheme == "psa"


def test_a_device_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert "cannot be read" in found(tmp_path, device=tmp_path / "none")["simulator"].detail
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    assert not found(tmp_path, device=bad)["simulator"].usable
    with pytest.raises(UnavailableError):
        open_attester("simulator", settings(tmp_path, device=bad))


def test_what_each_scheme_of_a_real_device_shows_is_said() -> None:
    assert set(PROOFS) >= set(SCHEMES) - {"sgx", "example", "composite"}


# --- Parsec


class FakeParsec:
    """Answers one request with fixed octets."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.request = b""
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.request = connection.recv(1024)
            connection.sendall(self._answer)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


def test_a_parsec_service_is_asked_and_said_to_make_no_evidence(short: Path) -> None:
    service = FakeParsec(short / "parsec.sock", PONG)
    each = found(short)["parsec"]
    service.close()
    assert service.request == PING
    assert not each.usable
    assert "wire protocol 1.0" in each.detail
    assert "no Evidence" in each.detail


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended"),
        (PONG[:20], "ended"),
        (PONG[:-1], "ended"),
        (b"HTTP/1.1 400 Bad Request, and so on for long enough", "no Parsec service"),
        (PONG[:32] + b"\x01\x00" + PONG[34:], "status 1"),
        (PONG[:22] + b"\xff\xff\xff\xff" + PONG[26:], "no Parsec service"),
    ],
)
def test_what_does_not_answer_as_parsec_is_told(short: Path, answer: bytes, words: str) -> None:
    service = FakeParsec(short / "parsec.sock", answer)
    each = found(short)["parsec"]
    service.close()
    assert words in each.detail


def test_a_socket_without_a_service_is_told(short: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        ping(short / "parsec.sock")
    assert caught.value.remedy


def test_the_environment_may_say_where_parsec_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT_VARIABLE, raising=False)
    assert parsec_socket() == PARSEC_SOCKET
    monkeypatch.setenv(ENDPOINT_VARIABLE, "unix:/srv/p.sock")
    assert parsec_socket() == Path("/srv/p.sock")
    monkeypatch.setenv(ENDPOINT_VARIABLE, "tcp:nothing")
    assert parsec_socket() == PARSEC_SOCKET
