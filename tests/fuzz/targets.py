# SPDX-License-Identifier: Apache-2.0
"""The decoders under test: one line for each."""

from __future__ import annotations

from fuzz.harness import Target, files
from fuzz.intel_targets import INTEL_TARGETS
from fuzz.result_targets import RESULT_TARGETS
from fuzz.tls_targets import TLS_TARGETS
from fuzz.tpm_targets import TPM_TARGETS
from fuzz.vendor_targets import VENDOR_TARGETS
from support.diag import encode_diag
from support.evidence import anchors_of, simulate, verify
from troth.endorsement.endorsements import endorsements_of
from troth.errors import DecodeError, VerificationError
from troth.evidence import cca, psa
from troth.evidence.registry import detect
from troth.evidence.simulator import CcaOptions, PsaOptions, from_json, to_json
from troth.formats import cbor, cmw
from troth.formats.corim import Comid, Corim, SignedCorim, decode_any
from troth.formats.cose import CoseKey, Mac0, Sign1
from troth.formats.coserv import Coserv
from troth.formats.eat import normalise_media_type
from troth.formats.keys import load_keys
from troth.formats.limits import RIM_LIMITS
from troth.formats.strict_json import decode_json

_CBOR = [
    *files("*/**/*.cbor"),
    encode_diag('{1: [1.5, {"a": -7}], "b": 18([null, true, h\'0102\'])}'),
]
_COSE = [encode_diag("18([h'a10126', {4: 'kid'}, h'a10a4100', h'00'])"), *files("*/**/*.cose")]
_MAC0 = [encode_diag("17([h'a10105', {}, h'a10a4100', h'00'])")]
_KEY = [encode_diag("{1: 4, -1: 'secret', 2: 'kid'}"), encode_diag("[{1: 1, -1: 6, -2: h'00'}]")]
_CMW = [
    encode_diag('{"a": [263, h\'01\', 4], 1: {2: 1668547081(h\'01\')}, "__cmwc_t": "a:b"}'),
    b'{"a": ["x/y", "AQ", 4], "b": {"c": ["x/y", "AQ"]}, "__cmwc_t": "1.2"}',
    *files("cmw/*.cbor"),
    *files("cmw/**/*.json"),
]
_KEYS = [*files("*/**/*.jwk"), *files("*/**/*.pem")[:12], *files("tpm/**/*.crt")[:2], *_KEY]
_JSON = [b'{"a": [1, -2.5e3, "\\u00e9", null, true, {}]}', *files("ear/**/*.json")]
_MEDIA_TYPES = [b'application/eat-cwt; profile="a:b"; c=d', b"text/plain;charset=utf-8"]
_CORIM = [*files("*/**/*corim*.cbor"), *files("corim/*.cbor")]
_SIGNED_CORIM = files("corim/signed-*.cbor")
_COMID = files("corim/comid/*.cbor")


def _endorse(data: bytes) -> object:
    """Decode a CoRIM and read it by the rules of its profile, as provisioning does."""
    decoded = decode_any(data)
    corim = decoded.unverified_corim() if isinstance(decoded, SignedCorim) else decoded
    return endorsements_of(corim, source="fuzz")


_DEVICE, _PLATFORM = simulate(PsaOptions()), simulate(CcaOptions())
_OLD = simulate(PsaOptions(profile="PSA_IOT_PROFILE_1", algorithm="HMAC 256/256"))
_LEGACY = simulate(CcaOptions(realm_profile="", wrapper_tag=399))
_CHALLENGE = bytes(range(64))
_PSA = [_DEVICE.attest(_CHALLENGE), _OLD.attest(_CHALLENGE), *files("psa/**/*.cose")]
_CCA = [
    _PLATFORM.attest(_CHALLENGE),
    _LEGACY.attest(_CHALLENGE),
    *files("cca/*/cca*token*.cbor"),
    *files("cca/veraison-services/cca-good.cbor"),
]
_REFUSALS = (DecodeError, VerificationError)

TARGETS = [
    Target("cbor", lambda data: cbor.decode(data, format="fuzz"), _CBOR),
    Target("cbor-rim", lambda data: cbor.decode(data, format="fuzz", limits=RIM_LIMITS), _CBOR),
    Target(
        "cbor-indefinite",
        lambda data: cbor.decode(data, format="fuzz", allow_indefinite=True),
        [b"\xbf\x01\x9f\x5f\x41\x01\x40\xff\x7f\x61a\xff\xff\xff", *_CBOR],
    ),
    Target(
        "cbor-deterministic", lambda data: cbor.decode_deterministic(data, format="fuzz"), _CBOR
    ),
    Target("cose-sign1", lambda data: Sign1.decode(data, format="fuzz").x5chain(), _COSE),
    Target("cose-mac0", lambda data: Mac0.decode(data, format="fuzz", tagging="either"), _MAC0),
    Target("cose-key", CoseKey.decode, _KEY),
    Target("keys", lambda data: load_keys(data, source="fuzz"), _KEYS),
    Target("cmw", cmw.decode, _CMW),
    Target(
        "cmw-extension",
        cmw.decode_extension,
        [b"\x04\x04\x82\x00\x41\x01", b'\x0c\x0c["x/y","AQ"]'],
    ),
    Target("comid", Comid.decode, _COMID),
    Target("corim", Corim.decode, _CORIM),
    Target("signed-corim", SignedCorim.decode, _SIGNED_CORIM),
    Target("endorsements", _endorse, [*_CORIM, *_SIGNED_CORIM]),
    Target("coserv", Coserv.decode, files("coserv/*.cbor")),
    Target("json", lambda data: decode_json(data, format="fuzz"), _JSON),
    Target("media-type", lambda data: normalise_media_type(data.decode("latin-1")), _MEDIA_TYPES),
    Target("psa", lambda data: psa.SCHEME.decode(data).claims.to_json(), _PSA),
    Target("cca", lambda data: cca.SCHEME.decode(data).realm.claims.to_json(), _CCA),
    Target("cca-platform", cca.decode_platform_token, files("cca/*/*platform_token*.cbor")),
    Target(
        "psa-verify",
        lambda data: verify(data, "psa", anchors=anchors_of(_DEVICE, _OLD), challenge=_CHALLENGE),
        _PSA,
        _REFUSALS,
    ),
    Target(
        "cca-verify",
        lambda data: verify(
            data, "cca", anchors=anchors_of(_PLATFORM, _LEGACY), challenge=_CHALLENGE
        ),
        _CCA,
        _REFUSALS,
    ),
    Target("evidence-detect", detect, [*_PSA, *_CCA]),
    Target(
        "device-file",
        lambda data: from_json(data, source="fuzz"),
        [to_json(_DEVICE).encode(), to_json(_PLATFORM).encode()],
    ),
    *RESULT_TARGETS,
    *TLS_TARGETS,
    *TPM_TARGETS,
    *VENDOR_TARGETS,
    *INTEL_TARGETS,
]
