# SPDX-License-Identifier: Apache-2.0
"""The decoders under test: one line for each."""

from __future__ import annotations

from fuzz.harness import Target, files
from support.diag import encode_diag
from troth.formats import cbor, cmw
from troth.formats.cose import CoseKey, Mac0, Sign1
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
    Target("json", lambda data: decode_json(data, format="fuzz"), _JSON),
    Target("media-type", lambda data: normalise_media_type(data.decode("latin-1")), _MEDIA_TYPES),
]
