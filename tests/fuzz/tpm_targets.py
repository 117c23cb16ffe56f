# SPDX-License-Identifier: Apache-2.0
"""The decoders of TPM structures, logs and Evidence under test: one line for each."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from fuzz.harness import Target, files
from support.software_tpm import SHA1, SHA256, BootLog, FileLog, SoftwareTpm
from troth.errors import DecodeError, VerificationError
from troth.evidence.tpm2 import SCHEME
from troth.evidence.tpm2.activation import ActivationRequest
from troth.formats.keys import VerificationKey
from troth.formats.tpm.algorithms import HASHES
from troth.formats.tpm.attest import decode_attest
from troth.formats.tpm.credential import decode_credential
from troth.formats.tpm.event_log import decode_event_log
from troth.formats.tpm.event_text import describe_event, is_debugger_allowed, secure_boot
from troth.formats.tpm.ima_log import decode_ima_log
from troth.formats.tpm.pcr_file import decode_pcr_file
from troth.formats.tpm.public import decode_public
from troth.formats.tpm.signature import decode_signature

_CHALLENGE = bytes(range(32))
_BANKS = (SHA1, SHA256)
_TPM = SoftwareTpm(banks=_BANKS)
_LOG, _FILES, _SIGNED_FILES = BootLog(_BANKS, _TPM), FileLog(_TPM), FileLog(template="ima-sig")
_LOG.boot()
_FILES.add_aggregate(_TPM)
for _log in (_FILES, _SIGNED_FILES):
    _log.add("/usr/bin/envoy", b"envoy", signature=b"\x03signed")
    _log.add("/var/log/x", b"x", violation=True)
_SELECTION = {SHA1: [0, 7, 10], SHA256: range(11)}
_QUOTE = _TPM.quote(_CHALLENGE, _SELECTION)
_KEY = VerificationKey(_TPM.key.public_key())
_EVIDENCE = [
    _TPM.evidence(_CHALLENGE, _SELECTION, event_log=_LOG.data, ima_log=_FILES.binary),
    _TPM.evidence(_CHALLENGE, _SELECTION, ima_log=_FILES.ascii, attestation_key=b""),
    _TPM.evidence(_CHALLENGE),
]
_OTHERS = [*files("tpm/parsec/*.cbor"), *files("tpm/veraison-services/*.token")]
_REQUEST = ActivationRequest(
    endorsement_key=decode_public(_TPM.endorsement_public),
    attestation_key=decode_public(_TPM.public),
    certificates=[b"\x30\x00"],
)


class _Anchors:
    """The one key, for whoever asks."""

    def keys(
        self, scheme: str, *, implementation_id: bytes, instance_id: bytes
    ) -> Sequence[VerificationKey]:
        del scheme, implementation_id, instance_id
        return [_KEY]

    def certificates(self, scheme: str) -> Sequence[x509.Certificate]:
        del scheme
        return []


def _public(data: bytes) -> object:
    public = decode_public(data)
    return public.name, public.thumbprint, public.public_key()


def _event_log(data: bytes) -> object:
    log = decode_event_log(data)
    told = [describe_event(event, HASHES[bank]) for event in log.events for bank in log.banks]
    assert all(line.isprintable() for line in told)
    facts = [(log.replay(HASHES[bank]), secure_boot(log, HASHES[bank])) for bank in log.banks]
    return told, facts, [is_debugger_allowed(log, HASHES[bank]) for bank in log.banks]


def _verify(data: bytes) -> object:
    return SCHEME.verify(
        SCHEME.decode(data), trust_anchors=_Anchors(), freshness=_CHALLENGE
    ).claims_sets


TPM_TARGETS = [
    Target("tpm-attest", decode_attest, [_QUOTE, *files("keylime/quote.out")]),
    Target("tpm-signature", decode_signature, [_TPM.sign(b""), *files("keylime/quotesig.out")]),
    Target("tpm-public", _public, [_TPM.public, _TPM.endorsement_public, *files("keylime/*k.pub")]),
    Target("tpm-credential", decode_credential, files("keylime/mkcred.out")),
    Target("tpm-event-log", _event_log, [_LOG.data, *files("tpm/go-tpm-tools/debian-10.bin")]),
    Target(
        "tpm-ima-log",
        decode_ima_log,
        [_FILES.ascii, _FILES.binary, _SIGNED_FILES.ascii, _SIGNED_FILES.binary],
    ),
    Target(
        "tpm-pcr-file",
        decode_pcr_file,
        [
            b'{"sha1": {"7": "' + b"ab" * 20 + b'"}}',
            b"  sha1:\n    7 : 0x" + b"ab" * 20,
            *files("keylime/quotepcr.out"),
        ],
    ),
    Target("tpm2", SCHEME.decode, [*_EVIDENCE, *_OTHERS]),
    Target("tpm2-verify", _verify, [*_EVIDENCE, *_OTHERS], (DecodeError, VerificationError)),
    Target("tpm2-activation", ActivationRequest.decode, [_REQUEST.encode()]),
]
