# SPDX-License-Identifier: Apache-2.0
"""The messages that we wrote down for SDS are those of stock Envoy, number by number."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

from support.envoy_mesh import envoy_binary
from troth.control_plane.envoy.descriptors import EnvoyDescriptors, extract
from troth.control_plane.workload_api.envoy_messages import DISCOVERY, TLS

_TLS = "envoy.extensions.transport_sockets.tls.v3"
OURS = {
    **{
        f"{_TLS}.{name}": (TLS, f"{_TLS}.{name}")
        for name in ("Secret", "TlsCertificate", "CertificateValidationContext")
    },
    f"{_TLS}.SPIFFECertValidatorConfig": (TLS, f"{_TLS}.SPIFFECertValidatorConfig"),
    f"{_TLS}.SPIFFECertValidatorConfig.TrustDomain": (TLS, f"{_TLS}.TrustDomain"),
    **{
        name: (DISCOVERY, name)
        for name in (
            "envoy.config.core.v3.DataSource",
            "envoy.config.core.v3.TypedExtensionConfig",
            "envoy.config.core.v3.Node",
            "envoy.config.core.v3.BuildVersion",
            "envoy.type.v3.SemanticVersion",
            "envoy.service.discovery.v3.DiscoveryRequest",
            "envoy.service.discovery.v3.DiscoveryResponse",
            "google.rpc.Status",
        )
    },
}


@pytest.fixture(scope="module")
def envoy() -> EnvoyDescriptors:
    binary = envoy_binary()
    files = extract(
        binary,
        (
            "envoy/extensions/transport_sockets/tls/v3/secret.proto",
            "envoy/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto",
            "envoy/service/discovery/v3/discovery.proto",
        ),
    )
    return EnvoyDescriptors(files, source=str(binary))


def _shape(field: FieldDescriptor) -> tuple[Any, ...]:
    kind = field.message_type.full_name if field.message_type is not None else field.cpp_type
    return (
        field.number,
        field.type,
        field.is_repeated,
        str(kind).replace("SPIFFECertValidatorConfig.TrustDomain", "TrustDomain"),
    )


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_field_has_envoys_number_and_type(envoy: EnvoyDescriptors, name: str) -> None:
    theirs = envoy.message(name).DESCRIPTOR
    schema, own_name = OURS[name]
    ours = schema.message(own_name).DESCRIPTOR
    assert ours.fields
    for field in ours.fields:
        assert _shape(field) == _shape(theirs.fields_by_name[field.name]), field.name
