# SPDX-License-Identifier: Apache-2.0
"""The part of Envoy's API that serving secrets takes: fields that are written, and those read.

An agent that serves SDS to Envoys of others does not need their program: these messages have not
changed in a field number since API version 3 began, and a test compares them with stock Envoy.

Source: envoy/service/secret/v3, envoy/service/discovery/v3, envoy/config/core/v3 and
envoy/extensions/transport_sockets/tls/v3 of Envoy 1.40.
"""

from __future__ import annotations

from typing import Final

from troth.control_plane.protobuf_schema import ProtobufSchema

__all__ = ["DISCOVERY", "SECRET_TYPE", "SPIFFE_VALIDATOR_TYPE", "TLS"]

_TLS_PACKAGE: Final = "envoy.extensions.transport_sockets.tls.v3"

SECRET_TYPE: Final = f"type.googleapis.com/{_TLS_PACKAGE}.Secret"
SPIFFE_VALIDATOR_TYPE: Final = f"type.googleapis.com/{_TLS_PACKAGE}.SPIFFECertValidatorConfig"

_RPC: Final = ProtobufSchema(
    "google/rpc/status_subset.proto",
    {"Status": {"code": "1 int32", "message": "2 string"}},
    package="google.rpc",
)
_VERSION: Final = ProtobufSchema(
    "envoy/type/v3/semantic_version_subset.proto",
    {
        "SemanticVersion": {
            "major_number": "1 uint32",
            "minor_number": "2 uint32",
            "patch": "3 uint32",
        }
    },
    package="envoy.type.v3",
    more=(_RPC,),
)
_CORE: Final = ProtobufSchema(
    "envoy/config/core/v3/base_subset.proto",
    {
        "BuildVersion": {"version": "1 envoy.type.v3.SemanticVersion"},
        "Node": {
            "id": "1 string",
            "metadata": "3 google.protobuf.Struct",
            "user_agent_build_version": "8 BuildVersion",
        },
        "DataSource": {"inline_bytes": "2 bytes"},
        "TypedExtensionConfig": {"name": "1 string", "typed_config": "2 google.protobuf.Any"},
    },
    package="envoy.config.core.v3",
    more=(_VERSION,),
)

DISCOVERY: Final = ProtobufSchema(
    "envoy/service/discovery/v3/discovery_subset.proto",
    {
        "DiscoveryRequest": {
            "version_info": "1 string",
            "node": "2 envoy.config.core.v3.Node",
            "resource_names": "3 repeated string",
            "type_url": "4 string",
            "response_nonce": "5 string",
            "error_detail": "6 google.rpc.Status",
        },
        "DiscoveryResponse": {
            "version_info": "1 string",
            "resources": "2 repeated google.protobuf.Any",
            "type_url": "4 string",
            "nonce": "5 string",
        },
    },
    package="envoy.service.discovery.v3",
    more=(_CORE,),
)

TLS: Final = ProtobufSchema(
    "envoy/extensions/transport_sockets/tls/v3/secret_subset.proto",
    {
        "TlsCertificate": {
            "certificate_chain": "1 envoy.config.core.v3.DataSource",
            "private_key": "2 envoy.config.core.v3.DataSource",
        },
        "CertificateValidationContext": {
            "trusted_ca": "1 envoy.config.core.v3.DataSource",
            "custom_validator_config": "12 envoy.config.core.v3.TypedExtensionConfig",
        },
        "Secret": {
            "name": "1 string",
            "tls_certificate": "2 TlsCertificate",
            "validation_context": "4 CertificateValidationContext",
        },
        "TrustDomain": {
            "name": "1 string",
            "trust_bundle": "2 envoy.config.core.v3.DataSource",
        },
        "SPIFFECertValidatorConfig": {"trust_domains": "1 repeated TrustDomain"},
    },
    package=_TLS_PACKAGE,
    oneofs={"Secret": ("tls_certificate", "validation_context")},
    more=(_CORE,),
)
