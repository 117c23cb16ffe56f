# SPDX-License-Identifier: Apache-2.0
"""The file from which `troth corim create --from` makes a CoRIM: TOML, YAML or JSON.

docs/reference/corim.md lists its keys. Octets are hexadecimal text; a digest may be preceded by
its algorithm ("sha-384:…"), which else goes by its length. In YAML every value is read as the
text that stands there, so 1.0 stays "1.0" and a digest of digits stays a digest.
"""

from __future__ import annotations

import tomllib
from collections.abc import Hashable
from pathlib import Path
from typing import Final

import msgspec
import yaml

from troth.cli.corim.files import parse_validity
from troth.cli.inputs import read_operator_file
from troth.control_plane.config_file import convert_config
from troth.endorsement.build import (
    AttestKey,
    Component,
    cca_platform_corim,
    cca_realm_corim,
    measured_corim,
    psa_corim,
)
from troth.endorsement.profiles import GENERIC_SCHEMES
from troth.errors import ConfigurationError
from troth.formats.corim import Corim
from troth.formats.strict_json import decode_json_object

__all__ = ["corim_from_description"]


class ComponentText(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """One software component."""

    digest: str
    signer_id: str
    name: str = ""
    version: str = ""


class KeyText(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """The attestation key of one instance, in the description or in a file beside it."""

    instance_id: str
    key: str = ""
    key_file: str = ""


class Description(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """A description."""

    id: str
    profile: str
    vendor: str = ""
    model: str = ""
    not_before: str = ""
    not_after: str = ""
    implementation_id: str = ""
    class_id: str = ""
    components: list[ComponentText] = []
    config: str = ""
    config_mask: str = ""
    rim: str = ""
    rems: list[str] = []
    rpv: str = ""
    digests: dict[str, list[str]] = {}
    registers: dict[str, list[str]] = {}
    keys: list[KeyText] = []


_COMMON: Final = {"id", "profile", "not-before", "not-after"}
_NAMED: Final = _COMMON | {"vendor", "model", "keys"}
_KEYS: Final = {
    "psa": _NAMED | {"implementation-id", "components"},
    "cca-platform": _NAMED | {"implementation-id", "components", "config", "config-mask"},
    "cca-realm": _COMMON | {"rim", "rems", "rpv"},
    **{scheme: _NAMED | {"class-id", "digests", "registers"} for scheme in GENERIC_SCHEMES},
}


def corim_from_description(path: str) -> Corim:
    """Read a description and build the CoRIM.

    Raises:
        ConfigurationError: naming file, key, value and the accepted form.
        DecodeError: a value does not fit the profile; the message names the member.
    """
    description = convert_config(_parse(path), Description, source=path)
    allowed = _KEYS.get(description.profile)
    if allowed is None:
        raise ConfigurationError(
            source=path,
            key="profile",
            value=description.profile,
            accepted=f"one of {', '.join(_KEYS)}",
        )
    names = zip(Description.__struct_encode_fields__, Description.__struct_fields__, strict=True)
    for key, attribute in names:
        if getattr(description, attribute) and key not in allowed:
            raise ConfigurationError(
                source=path,
                key=key,
                accepted=f"no such key for {description.profile}; it has "
                f"{', '.join(sorted(allowed))}",
            )
    return _Builder(description, path).build()


class _Builder:
    """Turns the texts of a description into octets and calls the builder of its profile."""

    def __init__(self, description: Description, path: str) -> None:
        self._is = description
        self._path = path

    def build(self) -> Corim:
        described = self._is
        validity = parse_validity(described.not_before, described.not_after, source=self._path)
        if described.profile == "cca-realm":
            return cca_realm_corim(
                corim_id=described.id,
                rim=self._digest("rim", described.rim)[0],
                rems=[self._digest("rems", each)[0] for each in described.rems],
                rpv=self._octets("rpv", described.rpv),
                validity=validity,
            )
        if described.profile == "psa":
            return psa_corim(
                corim_id=described.id,
                implementation_id=self._octets("implementation-id", described.implementation_id),
                components=self._components(),
                keys=self._keys(),
                vendor=described.vendor,
                model=described.model,
                validity=validity,
            )
        if described.profile == "cca-platform":
            mask = described.config_mask
            return cca_platform_corim(
                corim_id=described.id,
                implementation_id=self._octets("implementation-id", described.implementation_id),
                components=self._components(),
                config=self._octets("config", described.config) if described.config else None,
                config_mask=self._octets("config-mask", mask) if mask else None,
                keys=self._keys(),
                vendor=described.vendor,
                model=described.model,
                validity=validity,
            )
        return measured_corim(
            corim_id=described.id,
            scheme=described.profile,
            class_id=self._octets("class-id", described.class_id),
            digests={
                key: [self._digest(f"digests.{key}", each)[0] for each in values]
                for key, values in described.digests.items()
            },
            registers={
                int(key) if key.isascii() and key.isdecimal() else key: [
                    self._digest(f"registers.{key}", each)[0] for each in values
                ]
                for key, values in described.registers.items()
            },
            keys=self._keys(),
            vendor=described.vendor,
            model=described.model,
            validity=validity,
        )

    def _components(self) -> list[Component]:
        found: list[Component] = []
        for index, each in enumerate(self._is.components):
            place = f"components[{index}]"
            digest, algorithm = self._digest(f"{place}.digest", each.digest)
            found.append(
                Component(
                    digest=digest,
                    algorithm=algorithm,
                    signer_id=self._octets(f"{place}.signer-id", each.signer_id),
                    name=each.name,
                    version=each.version,
                )
            )
        return found

    def _keys(self) -> list[AttestKey]:
        found: list[AttestKey] = []
        for index, each in enumerate(self._is.keys):
            place = f"keys[{index}]"
            if bool(each.key) == bool(each.key_file):
                raise ConfigurationError(
                    source=self._path, key=place, accepted="either key or key-file"
                )
            material = each.key.encode()
            if each.key_file:
                material = read_operator_file(str(Path(self._path).parent / each.key_file))
            instance = self._octets(f"{place}.instance-id", each.instance_id)
            found.append(AttestKey(instance_id=instance, key=material))
        return found

    def _digest(self, key: str, text: str) -> tuple[bytes, str]:
        """Return the digest and the algorithm before it, "" where none is written."""
        algorithm, colon, value = text.rpartition(":")
        return self._octets(key, value), algorithm if colon else ""

    def _octets(self, key: str, text: str) -> bytes:
        try:
            value = bytes.fromhex(text)
        except ValueError as exc:
            raise ConfigurationError(
                source=self._path, key=key, value=text, accepted="hexadecimal text"
            ) from exc
        if not value and key in {"implementation-id", "class-id", "rim"}:
            raise ConfigurationError(
                source=self._path, key=key, accepted="a value: the key is required"
            )
        return value


def _parse(path: str) -> object:
    data = read_operator_file(path)
    kind = Path(path).suffix.lower()
    if kind == ".json":
        return decode_json_object(data, format=path)
    try:
        text = data.decode()
        if kind in {".yaml", ".yml"}:
            return yaml.load(text, _Loader)  # noqa: S506 - made from BaseLoader, which builds texts, lists and maps only
        if kind == ".toml":
            return tomllib.loads(text)
    except UnicodeDecodeError as exc:
        raise ConfigurationError(source=path, accepted="UTF-8 text") from exc
    except (yaml.YAMLError, tomllib.TOMLDecodeError, RecursionError) as exc:
        raise ConfigurationError(source=path, accepted=f"{kind[1:].upper()} ({exc})") from exc
    raise ConfigurationError(source=path, accepted="a name that ends in .toml, .yaml or .json")


class _Loader(yaml.BaseLoader):
    """YAML without types, tags and repeated keys."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - PyYAML's signature
    ) -> dict[Hashable, object]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} occurs twice", node.value[index][0].start_mark
                )
        return super().construct_mapping(node, deep)
