# SPDX-License-Identifier: Apache-2.0
"""Messages of the SPIFFE Workload API and Broker API, and of gRPC's error details.

Source: spiffe/spiffe, workloadapi.proto and brokerapi.proto (July 2026); googleapis, status.proto
and error_details.proto.
"""

from __future__ import annotations

from typing import Final

from troth.control_plane.protobuf_schema import ProtobufSchema

__all__ = ["BROKER", "BROKER_SERVICE", "RPC", "WORKLOAD", "WORKLOAD_SERVICE"]

WORKLOAD_SERVICE: Final = "SpiffeWorkloadAPI"
"""The service has no package."""

BROKER_SERVICE: Final = "spiffe.broker.API"

_X509_SVID: Final = {
    "spiffe_id": "1 string",
    "x509_svid": "2 bytes",
    "x509_svid_key": "3 bytes",
    "bundle": "4 bytes",
    "hint": "5 string",
}
_JWT_SVID: Final = {"spiffe_id": "1 string", "svid": "2 string", "hint": "3 string"}
_X509_RESPONSE: Final = {
    "svids": "1 repeated X509SVID",
    "crl": "2 repeated bytes",
    "federated_bundles": "3 map<string, bytes>",
}
_X509_BUNDLES: Final = {"crl": "1 repeated bytes", "bundles": "2 map<string, bytes>"}
_JWT_BUNDLES: Final = {"bundles": "1 map<string, bytes>"}

WORKLOAD: Final = ProtobufSchema(
    "workload.proto",
    {
        "X509SVIDRequest": {},
        "X509SVIDResponse": _X509_RESPONSE,
        "X509SVID": _X509_SVID,
        "X509BundlesRequest": {},
        "X509BundlesResponse": _X509_BUNDLES,
        "JWTSVIDRequest": {"audience": "1 repeated string", "spiffe_id": "2 string"},
        "JWTSVIDResponse": {"svids": "1 repeated JWTSVID"},
        "JWTSVID": _JWT_SVID,
        "JWTBundlesRequest": {},
        "JWTBundlesResponse": _JWT_BUNDLES,
        "ValidateJWTSVIDRequest": {"audience": "1 string", "svid": "2 string"},
        "ValidateJWTSVIDResponse": {"spiffe_id": "1 string", "claims": "2 google.protobuf.Struct"},
    },
)

_REFERENCE: Final = {"reference": "1 WorkloadReference"}

BROKER: Final = ProtobufSchema(
    "brokerapi.proto",
    {
        "WorkloadReference": {"reference": "1 google.protobuf.Any"},
        "WorkloadPIDReference": {"pid": "1 int32"},
        "SubscribeToX509SVIDRequest": _REFERENCE,
        "SubscribeToX509SVIDResponse": _X509_RESPONSE,
        "X509SVID": _X509_SVID,
        "SubscribeToX509BundlesRequest": _REFERENCE,
        "SubscribeToX509BundlesResponse": _X509_BUNDLES,
        "FetchJWTSVIDRequest": {
            **_REFERENCE,
            "audience": "2 repeated string",
            "spiffe_id": "3 string",
        },
        "FetchJWTSVIDResponse": {"svids": "1 repeated JWTSVID"},
        "JWTSVID": _JWT_SVID,
        "SubscribeToJWTBundlesRequest": _REFERENCE,
        "SubscribeToJWTBundlesResponse": _JWT_BUNDLES,
    },
    package="spiffe.broker",
)

RPC: Final = ProtobufSchema(
    "google/rpc/troth_subset.proto",
    {
        "Status": {
            "code": "1 int32",
            "message": "2 string",
            "details": "3 repeated google.protobuf.Any",
        },
        "ErrorInfo": {
            "reason": "1 string",
            "domain": "2 string",
            "metadata": "3 map<string, string>",
        },
    },
    package="google.rpc",
)
