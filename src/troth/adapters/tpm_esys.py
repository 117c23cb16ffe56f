# SPDX-License-Identifier: Apache-2.0
"""A TPM through tpm2-pytss, the Python binding of the TCG Software Stack (extra "tpm").

One connection is kept, with the attestation key loaded: a quote is one command to the TPM.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from importlib import import_module
from threading import Lock
from typing import Any, Final

from troth.adapters.tpm_driver import (
    AK_TEMPLATE,
    EK_CERTIFICATE_INDEX,
    EK_TEMPLATES,
    SRK_TEMPLATE,
    EkAlgorithm,
    EndorsementKey,
    TpmQuote,
    WrappedKey,
    der_of,
)
from troth.errors import ConfigurationError, UnavailableError
from troth.formats.tpm.attest import Quoted, decode_attest
from troth.formats.tpm.credential import Credential

__all__ = ["EsysDriver", "has_esys"]

_ATTEMPTS: Final = 3
_DIGESTS_PER_READ: Final = 8
_NV_PER_READ: Final = 512
_MAX_CERTIFICATE: Final = 8_192


def has_esys() -> bool:
    """Say whether tpm2-pytss can be used."""
    try:
        import_module("tpm2_pytss")
    except (ImportError, OSError, RuntimeError):  # absent, or its libraries are
        return False
    return True


class EsysDriver:
    """Implements TpmDriver by the Enhanced System API. May be used from several threads.

    Args:
        tcti: how to reach the TPM, such as "device:/dev/tpmrm0" or "swtpm:path=/run/swtpm.sock".
        ek: which endorsement key.

    Raises:
        ConfigurationError: tpm2-pytss is not installed.
        UnavailableError: the TPM is not there.
    """

    def __init__(self, tcti: str, *, ek: EkAlgorithm = "rsa") -> None:
        try:
            self._tss: Any = import_module("tpm2_pytss")
        except (ImportError, OSError, RuntimeError) as exc:
            raise ConfigurationError(
                source="TPM driver esys",
                accepted='tpm2-pytss, as `pip install "troth[tpm]"` installs it, and the '
                f"libraries of tpm2-tss ({exc})",
            ) from exc
        self._tcti, self._ek = tcti, ek
        self._lock = Lock()
        self._loaded: tuple[WrappedKey, Any] | None = None
        with self._translated("open"):
            self._esys: Any = self._tss.ESAPI(tcti)

    @property
    def source(self) -> str:
        """What it talks through to what."""
        return f"{self._tcti}, by tpm2-pytss"

    def create_attestation_key(self) -> WrappedKey:
        """Make a new attestation key."""
        with self._lock, self._translated("create an attestation key"):
            parent = self._primary(SRK_TEMPLATE, self._tss.ESYS_TR.OWNER)
            try:
                private, public, *_ = self._esys.create(
                    parent, self._no_secret(), self._public(AK_TEMPLATE)
                )
            finally:
                self._esys.flush_context(parent)
            return WrappedKey(bytes(public.marshal()), bytes(private.marshal()))

    def endorsement_key(self) -> EndorsementKey:
        """Return the endorsement key and its certificate."""
        with self._lock, self._translated("create the endorsement key"):
            handle, public, *_ = self._esys.create_primary(
                self._no_secret(),
                self._public(EK_TEMPLATES[self._ek]),
                self._tss.ESYS_TR.ENDORSEMENT,
            )
            self._esys.flush_context(handle)
            return EndorsementKey(bytes(public.marshal()), self._certificate())

    def quote(self, key: WrappedKey, challenge: bytes, bank: str, registers: list[int]) -> TpmQuote:
        """Quote these registers."""
        with self._lock, self._translated("quote"):
            handle = self._load(key)
            selection = f"{bank}:{','.join(map(str, registers))}"
            for _ in range(_ATTEMPTS):
                attest, signature = self._esys.quote(
                    handle, self._tss.TPML_PCR_SELECTION.parse(selection), challenge
                )
                values = self._read(bank, registers)
                quoted = decode_attest(bytes(attest)).attested
                digest = hashlib.sha256(values).digest()
                if isinstance(quoted, Quoted) and hmac.compare_digest(digest, quoted.digest):
                    return TpmQuote(bytes(attest), bytes(signature.marshal()), values)
            raise UnavailableError(
                f"{self._tcti}: registers kept changing between quote and reading "
                f"(bank {bank}), or that bank is not active"
            )

    def activate(self, key: WrappedKey, credential: Credential) -> bytes:
        """Return the secret in a credential."""
        tss, esys = self._tss, self._esys
        with self._lock, self._translated("activate a credential"):
            handle = self._load(key)
            endorsement = self._primary(EK_TEMPLATES[self._ek], tss.ESYS_TR.ENDORSEMENT)
            session = esys.start_auth_session(
                tss.ESYS_TR.NONE,
                tss.ESYS_TR.NONE,
                tss.TPM2_SE.POLICY,
                tss.TPMT_SYM_DEF(algorithm=tss.TPM2_ALG.NULL),
                tss.TPM2_ALG.SHA256,
            )
            try:
                esys.policy_secret(tss.ESYS_TR.ENDORSEMENT, session)
                secret = esys.activate_credential(
                    handle,
                    endorsement,
                    tss.TPM2B_ID_OBJECT(credential.id_object),
                    tss.TPM2B_ENCRYPTED_SECRET(credential.encrypted_seed),
                    session1=tss.ESYS_TR.PASSWORD,
                    session2=session,
                )
            finally:
                esys.flush_context(session)
                esys.flush_context(endorsement)
            return bytes(secret)

    def close(self) -> None:
        """Take the key out of the TPM and end the connection."""
        with self._lock, contextlib.suppress(Exception):
            if self._loaded is not None:
                self._esys.flush_context(self._loaded[1])
                self._loaded = None
            self._esys.close()

    def _load(self, key: WrappedKey) -> Any:  # noqa: ANN401 - the binding has no types
        if self._loaded is not None:
            if self._loaded[0] == key:
                return self._loaded[1]
            self._esys.flush_context(self._loaded[1])
            self._loaded = None
        parent = self._primary(SRK_TEMPLATE, self._tss.ESYS_TR.OWNER)
        try:
            private, _ = self._tss.TPM2B_PRIVATE.unmarshal(key.private)
            public, _ = self._tss.TPM2B_PUBLIC.unmarshal(key.public)
            handle = self._esys.load(parent, private, public)
        finally:
            self._esys.flush_context(parent)
        self._loaded = (key, handle)
        return handle

    def _primary(self, template: bytes, hierarchy: Any) -> Any:  # noqa: ANN401 - as above
        handle, *_ = self._esys.create_primary(self._no_secret(), self._public(template), hierarchy)
        return handle

    def _read(self, bank: str, registers: list[int]) -> bytes:
        values = b""
        for begin in range(0, len(registers), _DIGESTS_PER_READ):
            part = registers[begin : begin + _DIGESTS_PER_READ]
            selection = self._tss.TPML_PCR_SELECTION.parse(f"{bank}:{','.join(map(str, part))}")
            _, _, digests = self._esys.pcr_read(selection)
            values += b"".join(bytes(digest) for digest in digests)
        return values

    def _certificate(self) -> bytes:
        tss = self._tss
        try:
            index = self._esys.tr_from_tpmpublic(tss.TPM2_HANDLE(EK_CERTIFICATE_INDEX[self._ek]))
            public, _ = self._esys.nv_read_public(index)
            size = min(int(public.nvPublic.dataSize), _MAX_CERTIFICATE)
            data = b"".join(
                bytes(self._esys.nv_read(index, min(_NV_PER_READ, size - offset), offset))
                for offset in range(0, size, _NV_PER_READ)
            )
        except tss.TSS2_Exception:  # many TPMs hold none, and credential activation does without
            return b""
        return der_of(data)

    def _no_secret(self) -> Any:  # noqa: ANN401 - as above
        return self._tss.TPM2B_SENSITIVE_CREATE()

    def _public(self, template: bytes) -> Any:  # noqa: ANN401 - as above
        public, _ = self._tss.TPM2B_PUBLIC.unmarshal(len(template).to_bytes(2) + template)
        return public

    @contextlib.contextmanager
    def _translated(self, what: str) -> Any:  # noqa: ANN401 - a generator, as contextmanager wants
        try:
            yield
        except self._tss.TSS2_Exception as exc:
            raise UnavailableError(
                f"TPM at {self._tcti}: cannot {what}: {exc}",
                remedy="See that the TPM is there, that this user may use it (group tss), and "
                "that nobody has set an owner or endorsement password.",
            ) from exc
