# SPDX-License-Identifier: Apache-2.0
"""Make CoRIMs for TDX trust domains and SGX enclaves, and for roots of their platforms.

They speak the generic rules: a measurement's key is the field's name in the report. What is built
is read back by these rules before it is returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from troth.endorsement.endorsements import endorsements_of
from troth.endorsement.profiles import generic_uri
from troth.errors import ConfigurationError
from troth.formats.cbor import Tag
from troth.formats.corim import tags
from troth.formats.corim.comid import Comid
from troth.formats.corim.common import Validity
from troth.formats.corim.corim import Corim
from troth.formats.corim.environment import EnvironmentClass, EnvironmentMap
from troth.formats.corim.identifier import Digest
from troth.formats.corim.measurement import (
    Measurement,
    MeasurementValues,
    RawValue,
    Svn,
)
from troth.formats.corim.triples import KeyTriple, MeasurementTriple, Triples

__all__ = ["sgx_corim", "tdx_corim"]

_VENDOR: Final = "Intel"


def tdx_corim(
    *,
    corim_id: str,
    mr_td: bytes = b"",
    rtmrs: Sequence[bytes] = (),
    td_attributes: bytes = b"",
    xfam: bytes = b"",
    mr_config_id: bytes = b"",
    mr_owner: bytes = b"",
    mr_owner_config: bytes = b"",
    roots: Sequence[x509.Certificate] = (),
    validity: Validity | None = None,
) -> Corim:
    """Return a CoRIM with one reference state of a trust domain, root certificates, or both.

    A trust domain is affirmed only where MRTD and RTMR 0 to 2 are given.

    Args:
        corim_id: identifier of the CoRIM; unique, and what `withdraw` takes.
        mr_td: measurement of the virtual firmware, 48 octets; b"" makes no reference state.
        rtmrs: the runtime registers in order, up to four, 48 octets each; b"" for any.
        td_attributes: 8 octets; b"" for any that are safe.
        xfam: processor features, 8 octets; b"" for any.
        mr_config_id: the owner's configuration, 48 octets; b"" for none.
        mr_owner: the owner, 48 octets; b"" for none.
        mr_owner_config: the owner's other configuration, 48 octets; b"" for none.
        roots: root certificates that chains may end at, besides what the Verifier believes.
        validity: when the CoRIM may be used.

    Raises:
        ConfigurationError: neither MRTD nor a root, or more than four registers.
        DecodeError: an argument does not fit.
    """
    if len(rtmrs) > 4:
        raise ConfigurationError(
            source="rtmrs", value=str(len(rtmrs)), accepted="at most 4 registers"
        )
    registers = {f"rtmr{index}": value for index, value in enumerate(rtmrs)}
    values = {
        name: MeasurementValues(digests=(Digest("sha-384", value),))
        for name, value in {"mr_td": mr_td, **registers}.items()
        if value
    }
    values |= _raw(
        {
            "td_attributes": td_attributes,
            "xfam": xfam,
            "mr_config_id": mr_config_id,
            "mr_owner": mr_owner,
            "mr_owner_config": mr_owner_config,
        }
    )
    return _corim("tdx", corim_id, mr_td, values if mr_td else {}, roots, validity=validity)


def sgx_corim(
    *,
    corim_id: str,
    mr_enclave: bytes = b"",
    mr_signer: bytes = b"",
    isv_prod_id: int | None = None,
    minimum_isv_svn: int | None = None,
    attributes: RawValue | None = None,
    config_id: bytes = b"",
    roots: Sequence[x509.Certificate] = (),
    validity: Validity | None = None,
) -> Corim:
    """Return a CoRIM with one reference state of an enclave, root certificates, or both.

    An enclave is affirmed where MRENCLAVE is given, or MRSIGNER and the product id.

    Args:
        corim_id: identifier of the CoRIM; unique, and what `withdraw` takes.
        mr_enclave: measurement of the enclave, 32 octets; b"" for any of this signer's.
        mr_signer: digest of the signer's key, 32 octets; b"" for any.
        isv_prod_id: the signer's product; None for any.
        minimum_isv_svn: the lowest security version; None for any.
        attributes: the 16 octets, perhaps under a mask; None for any that are safe.
        config_id: the launcher's configuration, 64 octets; b"" for none.
        roots: root certificates that chains may end at, besides what the Verifier believes.
        validity: when the CoRIM may be used.

    Raises:
        ConfigurationError: neither a measurement, nor a signer, nor a root.
        DecodeError: an argument does not fit.
    """
    values = {
        name: MeasurementValues(digests=(Digest("sha-256", value),))
        for name, value in (("mr_enclave", mr_enclave), ("mr_signer", mr_signer))
        if value
    }
    if isv_prod_id is not None:
        values["isv_prod_id"] = MeasurementValues(int_range=isv_prod_id)
    if minimum_isv_svn is not None:
        values["isv_svn"] = MeasurementValues(svn=Svn(minimum_isv_svn, tags.MIN_SVN))
    if attributes is not None:
        values["attributes"] = MeasurementValues(raw_value=attributes)
    values |= _raw({"config_id": config_id})
    class_id = mr_enclave or mr_signer
    return _corim("sgx", corim_id, class_id, values if class_id else {}, roots, validity=validity)


def _raw(values: Mapping[str, bytes]) -> dict[str, MeasurementValues]:
    return {
        name: MeasurementValues(raw_value=RawValue(value))
        for name, value in values.items()
        if value
    }


def _corim(
    scheme: str,
    corim_id: str,
    class_id: bytes,
    values: Mapping[str, MeasurementValues],
    roots: Sequence[x509.Certificate],
    *,
    validity: Validity | None,
) -> Corim:
    comids: list[Comid] = []
    if values:
        environment = EnvironmentMap(
            environment_class=EnvironmentClass(class_id=Tag(tags.BYTES, class_id), vendor=_VENDOR)
        )
        measurements = tuple(Measurement(key=name, values=value) for name, value in values.items())
        state = MeasurementTriple(environment, measurements)
        comids.append(Comid(tag_id=f"{corim_id}:state", triples=Triples(reference=(state,))))
    if roots:
        keys = tuple(_root(root) for root in roots)
        comids.append(Comid(tag_id=f"{corim_id}:roots", triples=Triples(attest_key=keys)))
    if not comids:
        raise ConfigurationError(
            source=f"CoRIM {corim_id}", accepted="a measurement or a root certificate"
        )
    corim = Corim(
        corim_id=corim_id, tags=tuple(comids), profile=generic_uri(scheme), validity=validity
    )
    decoded = Corim.decode(corim.encode())
    endorsements_of(decoded, source=f"CoRIM {corim_id}")
    return decoded


def _root(root: x509.Certificate) -> KeyTriple:
    environment = EnvironmentMap(
        environment_class=EnvironmentClass(vendor=_VENDOR, model=root.subject.rfc4514_string())
    )
    pem = root.public_bytes(Encoding.PEM).decode()
    return KeyTriple(environment, (Tag(tags.CERTIFICATE, pem),))
