# SPDX-License-Identifier: Apache-2.0
"""Messages between SPIRE and its plugins, and those of go-plugin beneath them.

Sources: spiffe/spire-plugin-sdk, proto/ (June 2026); hashicorp/go-plugin 1.8, internal/plugin; gRPC
health checking protocol, version 1.
"""

from __future__ import annotations

from typing import Final

from troth.control_plane.protobuf_schema import ProtobufSchema

__all__ = [
    "AGENT_ATTESTOR",
    "AGENT_ATTESTOR_SERVICE",
    "COMPOSER",
    "COMPOSER_SERVICE",
    "CONFIG",
    "CONFIG_SERVICE",
    "GO_PLUGIN",
    "HEALTH",
    "INIT",
    "INIT_SERVICE",
    "SERVER_ATTESTOR",
    "SERVER_ATTESTOR_SERVICE",
]

CONFIG_SERVICE: Final = "spire.service.common.config.v1.Config"
INIT_SERVICE: Final = "spire.service.private.init.v1.Init"
SERVER_ATTESTOR_SERVICE: Final = "spire.plugin.server.nodeattestor.v1.NodeAttestor"
AGENT_ATTESTOR_SERVICE: Final = "spire.plugin.agent.nodeattestor.v1.NodeAttestor"
COMPOSER_SERVICE: Final = "spire.plugin.server.credentialcomposer.v1.CredentialComposer"

GO_PLUGIN: Final = ProtobufSchema(
    "troth_go_plugin.proto",
    {
        "Empty": {},
        "ConnInfo": {"service_id": "1 uint32", "network": "2 string", "address": "3 string"},
        # The channel is an enumeration, which has an integer's form.
        "StdioData": {"channel": "1 int32", "data": "2 bytes"},
    },
    package="plugin",
)

HEALTH: Final = ProtobufSchema(
    "troth_health.proto",
    {"HealthCheckRequest": {"service": "1 string"}, "HealthCheckResponse": {"status": "1 int32"}},
    package="grpc.health.v1",
)

INIT: Final = ProtobufSchema(
    "troth_spire_init.proto",
    {
        "InitRequest": {"host_service_names": "1 repeated string"},
        "InitResponse": {"plugin_service_names": "1 repeated string"},
        "DeinitRequest": {},
        "DeinitResponse": {},
    },
    package="spire.service.private.init.v1",
)

_CONFIGURATION: Final = {
    "core_configuration": "1 CoreConfiguration",
    "hcl_configuration": "2 string",
}

CONFIG: Final = ProtobufSchema(
    "troth_spire_config.proto",
    {
        "CoreConfiguration": {"trust_domain": "1 string"},
        "ConfigureRequest": _CONFIGURATION,
        "ConfigureResponse": {},
        "ValidateRequest": _CONFIGURATION,
        "ValidateResponse": {"valid": "1 bool", "notes": "2 repeated string"},
    },
    package="spire.service.common.config.v1",
)

SERVER_ATTESTOR: Final = ProtobufSchema(
    "troth_spire_server_nodeattestor.proto",
    {
        "AttestRequest": {"payload": "1 bytes", "challenge_response": "2 bytes"},
        "AgentAttributes": {
            "spiffe_id": "1 string",
            "selector_values": "2 repeated string",
            "can_reattest": "3 bool",
        },
        "AttestResponse": {"challenge": "1 bytes", "agent_attributes": "2 AgentAttributes"},
    },
    package="spire.plugin.server.nodeattestor.v1",
    oneofs={
        "AttestRequest": ("payload", "challenge_response"),
        "AttestResponse": ("challenge", "agent_attributes"),
    },
)

AGENT_ATTESTOR: Final = ProtobufSchema(
    "troth_spire_agent_nodeattestor.proto",
    {
        "Challenge": {"challenge": "1 bytes"},
        "PayloadOrChallengeResponse": {"payload": "1 bytes", "challenge_response": "2 bytes"},
    },
    package="spire.plugin.agent.nodeattestor.v1",
    oneofs={"PayloadOrChallengeResponse": ("payload", "challenge_response")},
)

_X509_OF_SUBJECT: Final = {
    "attributes": "1 X509SVIDAttributes",
    "spiffe_id": "2 string",
    "public_key": "3 bytes",
}

COMPOSER: Final = ProtobufSchema(
    "troth_spire_credentialcomposer.proto",
    {
        "AttributeTypeAndValue": {"oid": "1 string", "string_value": "2 string"},
        "DistinguishedName": {
            "country": "1 repeated string",
            "organization": "2 repeated string",
            "organizational_unit": "3 repeated string",
            "locality": "4 repeated string",
            "province": "5 repeated string",
            "street_address": "6 repeated string",
            "postal_code": "7 repeated string",
            "serial_number": "8 string",
            "common_name": "9 string",
            "extra_names": "10 repeated AttributeTypeAndValue",
        },
        "X509Extension": {"oid": "1 string", "value": "2 bytes", "critical": "3 bool"},
        "X509CAAttributes": {
            "subject": "1 DistinguishedName",
            "policy_identifiers": "2 repeated string",
            "extra_extensions": "3 repeated X509Extension",
        },
        "X509SVIDAttributes": {
            "subject": "1 DistinguishedName",
            "dns_sans": "2 repeated string",
            "extra_extensions": "3 repeated X509Extension",
        },
        "JWTSVIDAttributes": {"claims": "1 google.protobuf.Struct"},
        "ComposeServerX509CARequest": {"attributes": "1 X509CAAttributes"},
        "ComposeServerX509CAResponse": {"attributes": "1 X509CAAttributes"},
        "ComposeServerX509SVIDRequest": {"attributes": "1 X509SVIDAttributes"},
        "ComposeServerX509SVIDResponse": {"attributes": "1 X509SVIDAttributes"},
        "ComposeAgentX509SVIDRequest": _X509_OF_SUBJECT,
        "ComposeAgentX509SVIDResponse": {"attributes": "1 X509SVIDAttributes"},
        "ComposeWorkloadX509SVIDRequest": _X509_OF_SUBJECT,
        "ComposeWorkloadX509SVIDResponse": {"attributes": "1 X509SVIDAttributes"},
        "ComposeWorkloadJWTSVIDRequest": {
            "attributes": "1 JWTSVIDAttributes",
            "spiffe_id": "2 string",
        },
        "ComposeWorkloadJWTSVIDResponse": {"attributes": "1 JWTSVIDAttributes"},
    },
    package="spire.plugin.server.credentialcomposer.v1",
)
