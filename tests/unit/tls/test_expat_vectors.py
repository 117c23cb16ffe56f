# SPDX-License-Identifier: Apache-2.0
"""The published vectors: read by Troth, and by a checker that shares no code with it."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature

from support import rfc9261
from troth import errors
from troth.formats.exported_authenticator import Role
from troth.tls.core.messages import RequestParameters
from troth.tls.core.profile import EXPAT_03
from troth.tls.core.session import SessionBinding

FOLDER = Path(__file__).parents[2] / "vectors" / "expat"
FILES = sorted(FOLDER.glob("*.json"))


def load(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def octets(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector.get(name) or vector["intermediate"][name])


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("expat_make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_troth_reads_a_vector_as_it_says(path: Path) -> None:
    vector = load(path)
    export = rfc9261.exporter(octets(vector, "exporter_master_secret"), vector["hash"])
    role = Role(vector["requester"])
    binding = SessionBinding(role=role, exporter=export, hash_name=vector["hash"])
    parameters = RequestParameters.decode(octets(vector, "request_parameters"))
    request = binding.make_request(octets(vector, "certificate_request_context"), parameters)
    assert request.raw == octets(vector, "request")
    if vector["expect"] != "valid":
        with pytest.raises(getattr(errors, vector["expect"])):
            binding.read_proof(request, octets(vector, "authenticator"))
        return
    proof = binding.read_proof(request, octets(vector, "authenticator"))
    assert proof.chain == (octets(vector, "certificate"),)
    assert proof.payload == octets(vector, "cmw")
    spki = octets(vector, "subject_public_key_info")
    assert binding.expected_challenge(proof, spki, 64) == octets(vector, "binder_in_64_octets")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_independent_checker_agrees(path: Path) -> None:
    vector = load(path)
    name, requester = vector["hash"], vector["requester"]
    export = rfc9261.exporter(octets(vector, "exporter_master_secret"), name)
    sender = "server" if requester == "client" else "client"
    assert rfc9261.keys_of(export, sender, name) == (
        octets(vector, "handshake_context"),
        octets(vector, "finished_key"),
    )
    exported = export("Attestation", octets(vector, "certificate_request_context"), 32)
    assert exported == octets(vector, "attestation_exported_value")
    given = (export, name, requester, octets(vector, "request"), octets(vector, "authenticator"))
    if vector["expect"] != "valid":
        with pytest.raises((AssertionError, InvalidSignature, IndexError)):
            rfc9261.check(*given)
        return
    checked = rfc9261.check(*given)
    assert checked.extensions[EXPAT_03.cmw_extension] == octets(vector, "cmw")
    assert checked.request_extensions[EXPAT_03.cmw_extension] == b""
    binder = rfc9261.binder(export, checked.context, checked.spki, name)
    assert binder == octets(vector, "binder")
    assert binder in octets(vector, "cmw")


def test_the_files_are_what_their_maker_makes() -> None:
    made = _maker().vectors()
    assert {f"{name}.json" for name in made} == {path.name for path in FILES}
    for path in FILES:
        assert load(path) == json.loads(json.dumps(made[path.stem]))


def test_every_vector_is_described() -> None:
    table = (FOLDER / "SOURCES.md").read_text()
    for path in FILES:
        kind = path.stem.partition("-bad-")[2]
        assert f"*-bad-{kind}" in table if kind else path.stem.rpartition("-")[2] in table
