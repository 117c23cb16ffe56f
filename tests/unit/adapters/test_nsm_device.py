# SPDX-License-Identifier: Apache-2.0
"""The security module, played behind the very ioctl that the kernel would get."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from support.vendor_evidence import CHALLENGE, verify_with
from troth.adapters.nsm_device import NSM_REQUEST, NsmAttester, NsmDevice
from troth.errors import ApiMisuseError, UnavailableError
from troth.evidence.nitro import SCHEME
from troth.formats import cbor
from troth.testing.nitro import SimulatedEnclave

ENCLAVE = SimulatedEnclave()
DESCRIPTION = {
    "version_major": 1,
    "version_minor": 2,
    "version_patch": 3,
    "module_id": ENCLAVE.module_id,
    "max_pcrs": 32,
    "locked_pcrs": [0, 1, 2],
    "digest": "SHA384",
}


class FakeModule:
    """Reads the request out of the caller's memory and writes the response into it."""

    def __init__(self, *, answer: object = None, raw: bytes | None = None, fail: int = 0) -> None:
        self._answer, self._raw, self._fail = answer, raw, fail
        self.requests: list[object] = []
        self.claimed: int | None = None

    def ioctl(self, descriptor: int, number: int, message: ctypes.Structure) -> int:
        assert number == NSM_REQUEST
        os.fstat(descriptor)
        if self._fail:
            raise OSError(self._fail, os.strerror(self._fail))
        request = cbor.decode(
            ctypes.string_at(message.request.base, message.request.length), format="request"
        )
        self.requests.append(request)
        response = self._raw if self._raw is not None else cbor.encode(self._respond(request))
        assert message.response.length >= len(response)
        ctypes.memmove(message.response.base, response, len(response))
        message.response.length = len(response) if self.claimed is None else self.claimed
        return 0

    def _respond(self, request: object) -> object:
        if self._answer is not None:
            return self._answer
        match request:
            case "DescribeNSM":
                return {"DescribeNSM": DESCRIPTION}
            case {"Attestation": {"nonce": bytes() as nonce, **given}}:
                return {"Attestation": {"document": ENCLAVE.saying(**given).attest(nonce)}}
        return {"Error": "InvalidOperation"}


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "nsm"
    path.write_bytes(b"")
    return path


def attester(device: Path, module: FakeModule, **given: bytes) -> NsmAttester:
    return NsmAttester(NsmDevice(device, ioctl=module.ioctl), **given)


def test_the_ioctl_is_the_one_of_the_kernels_header() -> None:
    """_IOWR(0x0A, 0x0, struct nsm_raw) with two pointers and two sizes of 8 octets."""
    assert NSM_REQUEST == 0xC0200A00


def test_a_document_with_the_challenge_as_nonce_is_brought(device: Path) -> None:
    module = FakeModule()
    made = attester(device, module)
    assert made.media_type == SCHEME.media_types[0]
    verify_with(made.attest(CHALLENGE), "nitro", ENCLAVE.authority.root)
    assert module.requests == [
        {"Attestation": {"nonce": CHALLENGE, "public_key": None, "user_data": None}}
    ]


def test_the_callers_octets_go_into_the_document(device: Path) -> None:
    made = attester(device, FakeModule(), public_key=b"key", user_data=b"data")
    document = SCHEME.decode(made.attest(CHALLENGE)).document
    assert (document.public_key, document.user_data) == (b"key", b"data")


@pytest.mark.parametrize("size", [0, 32, 65])
def test_a_challenge_has_64_octets(device: Path, size: int) -> None:
    with pytest.raises(ApiMisuseError, match="64 octets"):
        attester(device, FakeModule()).attest(bytes(size))


def test_it_says_what_it_is(device: Path) -> None:
    description = attester(device, FakeModule()).describe()
    assert description.source == str(device)
    assert description.identity == ENCLAVE.module_id.encode().hex()
    assert description.details["security module version"] == "1.2.3"


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        (FakeModule(answer={"Error": "InputTooLarge"}), "refuses: 'InputTooLarge'"),
        (FakeModule(answer={"Attestation": {}}), "there is no document in it"),
        (FakeModule(answer={"Attestation": {"document": "text"}}), "there is no document in it"),
        (FakeModule(answer={"DescribeNSM": DESCRIPTION}), "no answer to Attestation"),
        (FakeModule(answer="Attestation"), "no answer to Attestation"),
        (FakeModule(raw=b""), "NSM response"),
        (FakeModule(raw=b"\xff"), "NSM response"),
        (FakeModule(fail=errno.ENOTTY), os.strerror(errno.ENOTTY)),
    ],
)
def test_a_module_that_does_not_answer_as_it_should_is_unavailable(
    device: Path, module: FakeModule, problem: str
) -> None:
    with pytest.raises(UnavailableError, match=problem):
        attester(device, module).attest(CHALLENGE)


def test_a_module_without_a_name_is_unavailable(device: Path) -> None:
    with pytest.raises(UnavailableError, match="no module id"):
        attester(device, FakeModule(answer={"DescribeNSM": {}})).describe()


def test_a_length_beyond_the_buffer_is_not_believed(device: Path) -> None:
    module = FakeModule()
    module.claimed = 0x3001
    with pytest.raises(UnavailableError, match="12289 octets"):
        attester(device, module).attest(CHALLENGE)


def test_a_request_that_is_too_long_is_not_sent(device: Path) -> None:
    module = FakeModule()
    with pytest.raises(UnavailableError, match="a request of"):
        attester(device, module, user_data=bytes(0x1000)).attest(CHALLENGE)
    assert module.requests == []


def test_a_machine_without_the_device_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="No such file") as caught:
        NsmAttester(NsmDevice(tmp_path / "none")).attest(CHALLENGE)
    assert "in an enclave only" in caught.value.remedy


def test_a_file_that_is_no_security_module_is_told_so(device: Path) -> None:
    """The kernel's own ioctl, on a file that does not know it."""
    with pytest.raises(UnavailableError, match=str(device)):
        NsmAttester(NsmDevice(device)).attest(CHALLENGE)
