# SPDX-License-Identifier: Apache-2.0
"""The Attester of an AWS Nitro Enclave: documents from the Nitro Security Module, /dev/nsm.

Requests and responses are CBOR, exchanged by one ioctl whose argument is two buffers.

Source: Linux include/uapi/linux/nsm.h; aws-nitro-enclaves-nsm-api, request and response types.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from troth.errors import ApiMisuseError, DecodeError, UnavailableError
from troth.evidence.attester import AttesterDescription
from troth.evidence.nitro.document import MEDIA_TYPE
from troth.evidence.nitro.scheme import CHALLENGE_SIZE
from troth.formats import cbor
from troth.formats.limits import Limits
from troth.formats.quoting import shown

__all__ = ["NSM_DEVICE", "NsmAttester", "NsmDevice", "NsmTransport"]

NSM_DEVICE: Final = Path("/dev/nsm")

_REQUEST_MAX: Final = 0x1000
_RESPONSE_MAX: Final = 0x3000
_LIMITS: Final = Limits(max_bytes=_RESPONSE_MAX, max_items=512, max_depth=6)
_FORMAT: Final = "NSM response"


class _Buffer(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct nsm_raw."""

    _fields_ = (("request", _Buffer), ("response", _Buffer))


def _iowr(kind: int, number: int, size: int) -> int:
    """Return _IOWR(kind, number, size) of the generic Linux layout (x86 and Arm have it)."""
    return 3 << 30 | size << 16 | kind << 8 | number


NSM_REQUEST: Final = _iowr(0x0A, 0, ctypes.sizeof(_Message))


class NsmTransport(Protocol):
    """Takes a request to the security module and brings the response. A fake in tests."""

    @property
    def source(self) -> str:
        """The device, for people."""
        ...

    def exchange(self, request: bytes) -> bytes:
        """Return the response.

        Raises:
            OSError: as the kernel says.
        """
        ...


class NsmDevice:
    """The kernel's device.

    Args:
        path: the device.
        ioctl: how the kernel is called.
    """

    def __init__(
        self, path: Path = NSM_DEVICE, *, ioctl: Callable[[int, int, Any], int] = fcntl.ioctl
    ) -> None:
        self._path, self._ioctl = path, ioctl

    @property
    def source(self) -> str:
        """The device."""
        return str(self._path)

    def exchange(self, request: bytes) -> bytes:
        """Return the response to one request.

        Raises:
            OSError: as the kernel says; EMSGSIZE for a request that is too long.
        """
        if len(request) > _REQUEST_MAX:
            raise OSError(errno.EMSGSIZE, f"a request of {len(request)} octets")
        outgoing = ctypes.create_string_buffer(request, len(request))
        incoming = ctypes.create_string_buffer(_RESPONSE_MAX)
        message = _Message(
            _Buffer(ctypes.addressof(outgoing), len(request)),
            _Buffer(ctypes.addressof(incoming), _RESPONSE_MAX),
        )
        descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._ioctl(descriptor, NSM_REQUEST, message)
        finally:
            os.close(descriptor)
        # The kernel writes back how much of the buffer it has filled.
        length = message.response.length
        if length > _RESPONSE_MAX:
            raise OSError(errno.EMSGSIZE, f"a response of {length} octets")
        return incoming.raw[:length]


class NsmAttester:
    """Makes Evidence of the enclave that this process runs in; implements the Attester port.

    Args:
        transport: the security module.
        public_key, user_data: the caller's octets that go into every document.
    """

    scheme = "nitro"
    media_type = MEDIA_TYPE
    challenge_size = CHALLENGE_SIZE

    def __init__(
        self,
        transport: NsmTransport | None = None,
        *,
        public_key: bytes | None = None,
        user_data: bytes | None = None,
    ) -> None:
        self._transport = transport or NsmDevice()
        self._given = {"public_key": public_key, "user_data": user_data}

    def attest(self, challenge: bytes) -> bytes:
        """Return a document whose nonce is `challenge`.

        Raises:
            ApiMisuseError: it has not 64 octets.
            UnavailableError: the security module does not answer, or refuses.
        """
        if len(challenge) != CHALLENGE_SIZE:
            raise ApiMisuseError(f"a challenge has {CHALLENGE_SIZE} octets, not {len(challenge)}")
        answer = self._ask("Attestation", {"Attestation": {**self._given, "nonce": challenge}})
        document = answer.get("document")
        if not isinstance(document, bytes):
            raise self._unreadable("there is no document in it")
        return document

    def describe(self) -> AttesterDescription:
        """Say what this Attester is, from what the security module tells of itself."""
        answer = self._ask("DescribeNSM", "DescribeNSM")
        module = answer.get("module_id")
        if not isinstance(module, str):
            raise self._unreadable("there is no module id in it")
        version = ".".join(
            str(answer.get(f"version_{part}", "?")) for part in ("major", "minor", "patch")
        )
        return AttesterDescription(
            scheme=self.scheme,
            media_type=self.media_type,
            source=self._transport.source,
            challenge_size=self.challenge_size,
            identity=module.encode().hex(),
            details={"module": module, "security module version": version},
        )

    def _ask(self, name: str, request: object) -> Mapping[object, object]:
        source = self._transport.source
        try:
            response = self._transport.exchange(cbor.encode(request))
        except OSError as exc:
            raise UnavailableError(
                f"{source}: {exc.strerror or exc}",
                remedy="The Nitro Security Module is there in an enclave only, and its device may "
                "be for root only.",
            ) from exc
        try:
            value = cbor.decode(response, format=_FORMAT, limits=_LIMITS, allow_indefinite=True)
        except DecodeError as exc:
            raise UnavailableError(f"{source}: {exc}") from exc
        match value:
            case {"Error": str() as reason}:
                raise UnavailableError(
                    f"{source}: the security module refuses: {shown(reason)}",
                    remedy="See the NSM error codes of the AWS Nitro Enclaves User Guide.",
                )
            case dict() if isinstance(value.get(name), dict):
                found: Mapping[object, object] = value[name]
                return found
        raise self._unreadable(f"it is no answer to {name}")

    def _unreadable(self, why: str) -> UnavailableError:
        return UnavailableError(f"{self._transport.source}: the response cannot be used: {why}")
