# SPDX-License-Identifier: Apache-2.0
"""SDS secrets under SPIRE's names, from what a workload gets.

=============================  =====================================================
name                           secret
=============================  =====================================================
a SPIFFE ID of the workload    its certificate and key
`default`                      certificate and key of the first identity
`spiffe://DOMAIN`              validation of this trust domain, ours or a federated one
`ROOTCA`                       validation of our own trust domain
`ALL`                          validation of all trust domains, each by its own bundle
no name at all                 every one of the first and the third kind
=============================  =====================================================

Validation is Envoy's SPIFFE validator, which takes each peer's certificate by the bundle of its own
trust domain; for Envoys before 1.18, or where it is turned off, plain CA certificates. `ALL` then
cannot be had: one list of authorities would let each trust domain vouch for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from troth.control_plane.workload_api.envoy_messages import (
    SECRET_TYPE,
    SPIFFE_VALIDATOR_TYPE,
    TLS,
)
from troth.control_plane.workload_api.identities import HeldIdentity, WorkloadView
from troth.errors import AuthorizationError
from troth.identity.trust_bundle import TrustBundle

__all__ = ["SecretNames", "secrets_for", "takes_spiffe_validator"]

_VALIDATOR: Final = "envoy.tls.cert_validator.spiffe"
_METADATA: Final = "disable_spiffe_cert_validation"
_LAST_WITHOUT_VALIDATOR: Final = (1, 17)
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretNames:
    """The names that stand for something; the defaults are SPIRE's."""

    svid: str = "default"
    bundle: str = "ROOTCA"
    all_bundles: str = "ALL"


def takes_spiffe_validator(node: Any, *, disabled: bool) -> bool:  # noqa: ANN401 - classes made at run time
    """Say whether an Envoy gets the SPIFFE validator: by its version, the agent's setting, and its own.

    An Envoy that does not say its version is a new one. Its metadata override the agent's setting,
    if they are a boolean.
    """
    if node.HasField("user_agent_build_version"):
        version = node.user_agent_build_version.version
        if (version.major_number, version.minor_number) <= _LAST_WITHOUT_VALIDATOR:
            return False
    fields = node.metadata.fields
    if _METADATA in fields:
        value = fields[_METADATA]
        kind = value.WhichOneof("kind")
        if kind == "bool_value":
            disabled = value.bool_value
        elif kind == "string_value" and value.string_value in _TRUE | _FALSE:
            disabled = value.string_value in _TRUE
    return not disabled


def secrets_for(
    view: WorkloadView, names: Iterable[str], *, known: SecretNames, spiffe_validator: bool
) -> list[Any]:
    """Return the secrets of these names, packed, or of all that have a name of their own.

    Raises:
        AuthorizationError: a name is none that the workload is entitled to; then nothing is given.
    """
    wanted = {name for name in names if name}
    makers = dict(_makers(view, known, spiffe_validator=spiffe_validator))
    if not wanted:
        special = {known.svid, known.bundle, known.all_bundles}
        return [_packed(make(name)) for name, make in makers.items() if name not in special]
    if unknown := sorted(wanted - makers.keys()):
        raise AuthorizationError(
            f"the workload is not entitled to {', '.join(unknown)[:512]}",
            remedy="register the workload, or ask for one of its names",
        )
    return [_packed(makers[name](name)) for name in sorted(wanted)]


def _makers(
    view: WorkloadView, known: SecretNames, *, spiffe_validator: bool
) -> Iterator[tuple[str, Any]]:
    """Yield every name with what makes its secret; a later one of the same name prevails."""
    issued = [held for held in view.identities if held.svid is not None]
    bundles = {str(each.trust_domain.id): each for each in (view.own, *view.federated.values())}

    def validation(trusted: Mapping[str, TrustBundle]) -> Any:  # noqa: ANN401 - classes made at run time
        return lambda name: _validation(name, trusted, spiffe_validator=spiffe_validator)

    def certificate(held: HeldIdentity) -> Any:  # noqa: ANN401 - classes made at run time
        return lambda name: _certificate(name, held)

    own_id = str(view.own.trust_domain.id)
    if not issued:
        return  # nobody: not even who is trusted is told
    if spiffe_validator:
        yield known.all_bundles, validation(bundles)
    yield known.bundle, validation({own_id: view.own})
    for domain_id, bundle in bundles.items():
        yield domain_id, validation({domain_id: bundle})
    yield known.svid, certificate(issued[0])
    for held in reversed(issued):  # of two with one SPIFFE ID the first counts
        yield held.entry.spiffe_id, certificate(held)


def _certificate(name: str, held: HeldIdentity) -> Any:  # noqa: ANN401 - classes made at run time
    secret = TLS["Secret"](name=name)
    if held.svid is not None:
        chain = secret.tls_certificate.certificate_chain
        chain.inline_bytes = held.svid.encode_pem()
        key = secret.tls_certificate.private_key
        key.inline_bytes = held.svid.encode_private_key(Encoding.PEM)
    return secret


def _validation(name: str, trusted: Mapping[str, TrustBundle], *, spiffe_validator: bool) -> Any:  # noqa: ANN401 - classes made at run time
    secret = TLS["Secret"](name=name)
    context = secret.validation_context
    if not spiffe_validator:
        pem = b"".join(bundle.encode_pem() for bundle in trusted.values())
        context.trusted_ca.inline_bytes = pem
        return secret
    config = TLS["SPIFFECertValidatorConfig"]()
    for bundle in trusted.values():
        domain = config.trust_domains.add(name=bundle.trust_domain.name)
        domain.trust_bundle.inline_bytes = bundle.encode_pem()
    context.custom_validator_config.name = _VALIDATOR
    typed = context.custom_validator_config.typed_config
    typed.type_url = SPIFFE_VALIDATOR_TYPE
    typed.value = config.SerializeToString(deterministic=True)
    return secret


def _packed(secret: Any) -> tuple[str, bytes]:  # noqa: ANN401 - classes made at run time
    return SECRET_TYPE, secret.SerializeToString(deterministic=True)
