# SPDX-License-Identifier: Apache-2.0
"""Trustee's Attestation Service as a Verifier, by its RESTful interface.

It compares `runtime_data.raw` with what the Evidence carries (report data, CCA: the challenge).
A failed verification is a status 500 with text there, like any other failure; the text tells.

Source: confidential-containers/trustee, attestation-service/docs/restful-as.md and the `verifier`
crate's forms of Evidence.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import httpx
import msgspec

from troth.adapters.bounded_http import BoundedClient
from troth.adapters.remote_verifiers.remote_verifier import Submission
from troth.errors import SignatureError, TrothError, UnavailableError, UnsupportedError
from troth.evidence import registry
from troth.formats.base64url import encode_base64url
from troth.formats.jwk import decode_jwks
from troth.formats.strict_json import decode_json
from troth.formats.verification_key import VerificationKey

__all__ = ["TrusteeService"]

_ATTESTATION: Final = "/attestation"
_JWKS: Final = "/.well-known/jwks.json"
_MAX_REPLY_BYTES: Final = 1_048_576
_REFUSED: Final = b"Verifier evaluate failed"


def _token(evidence: bytes) -> dict[str, object]:
    return {"token": list(evidence)}


def _quote(evidence: bytes) -> dict[str, object]:
    return {"quote": base64.b64encode(evidence).decode("ascii")}


# Scheme to Trustee's name of the TEE and its form of the Evidence.
_FORMS: Final[Mapping[str, tuple[str, Callable[[bytes], dict[str, object]]]]] = {
    "cca": ("cca", _token),
    "tdx": ("tdx", _quote),
    "sgx": ("sgx", _quote),
}


class TrusteeService:
    """Talks to one Attestation Service; an `AttestationService`. Close it.

    Args:
        url: of its RESTful interface, "https://host:port".
        tls: context for https.
        policies: ids of the policies to apply there; none: its default.
        timeout_seconds: for one step.
    """

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None,
        policies: Sequence[str] = (),
        timeout_seconds: float,
    ) -> None:
        self._http = BoundedClient(
            url, tls=tls, timeout_seconds=timeout_seconds, max_bytes=_MAX_REPLY_BYTES
        )
        self._policies = list(policies)

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"Trustee at {self._http.url}"

    @property
    def schemes(self) -> Mapping[str, registry.Loader]:
        """The schemes whose Evidence can be sent there and read here."""
        return {name: registry.SCHEMES[name] for name in _FORMS if name in registry.SCHEMES}

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def submit(self, submission: Submission) -> str:
        """Return the EAR, not verified; see `AttestationService`."""
        tee, form = _FORMS[submission.scheme.name]
        evidence = msgspec.json.encode(form(submission.evidence))
        request = {
            "verification_requests": [
                {
                    "tee": tee,
                    "evidence": encode_base64url(evidence),
                    "runtime_data": {"raw": encode_base64url(submission.challenge)},
                }
            ],
            "policy_ids": self._policies,
        }
        response = self._http.request(
            "POST",
            _ATTESTATION,
            content=msgspec.json.encode(request),
            headers={"Content-Type": "application/json"},
        )
        if response.status_code != httpx.codes.OK:
            raise self._refused(response)
        try:
            return response.content.decode("ascii").strip()
        except UnicodeDecodeError as exc:
            raise UnavailableError(f"{self.name} answers something else than a token") from exc

    def keys(self) -> list[VerificationKey]:
        """Return the keys in its JWK Set."""
        response = self._http.request("GET", _JWKS)
        if response.status_code != httpx.codes.OK:
            raise UnavailableError(f"{self.name} answers {response.status_code} for its keys")
        form = f"{self.name}: keys"
        return decode_jwks(decode_json(response.content, format=form), format=form)

    def _refused(self, response: httpx.Response) -> TrothError:
        said = response.content[:512].decode("utf-8", "replace")
        if _REFUSED in response.content:
            return SignatureError(f"{self.name} refuses the Evidence: {said}")
        if response.status_code in {400, 413, 415}:
            return UnsupportedError(f"{self.name}: {said}", format="Evidence")
        return UnavailableError(f"{self.name} answers {response.status_code}: {said}")
