# SPDX-License-Identifier: Apache-2.0
"""Trust anchors: the attestation keys and root certificates that an Endorser vouches for.

Source: RFC 9334 section 7.4; draft-ietf-rats-corim (0b855af) "Attest Key Triple".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from cryptography import x509

from troth.endorsement.reference_value import Environment
from troth.errors import ApiMisuseError
from troth.formats.corim.key_material import key_from_spki
from troth.formats.corim.node import Node
from troth.formats.keys import VerificationKey

__all__ = ["TrustAnchor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchor:
    """One attestation key, or one root certificate, with the environment that it stands for.

    Keys stay encoded until they are used: a fleet has a million of them, an appraisal one. They
    were decoded once when the anchor was made, so decoding them again does not fail.

    Attributes:
        id: stable identifier: "<CoRIM id>/<CoMID tag id>#key<n>"; what `withdraw` takes.
        scheme: the scheme's one word.
        environment: whose key it is. For a certificate often only vendor and model.
        public_key: DER SubjectPublicKeyInfo, or b"".
        certificate: DER certificate, or b"". Exactly one of the two is set.
        source: the file or service it came from, for messages.
        not_before, not_after: validity of the endorsement, else None.
    """

    id: str
    scheme: str
    environment: Environment
    public_key: bytes = field(default=b"", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    source: str = ""
    not_before: datetime | None = None
    not_after: datetime | None = None

    def __post_init__(self) -> None:
        if bool(self.public_key) == bool(self.certificate):
            raise ApiMisuseError(f"trust anchor {self.id}: one of key and certificate, not both")

    def verification_key(self) -> VerificationKey:
        """Return the key.

        Raises:
            ApiMisuseError: the anchor is a certificate.
        """
        if not self.public_key:
            raise ApiMisuseError(f"trust anchor {self.id} is a certificate")
        return _verification_key(self.public_key, f"{self.source} {self.id}".strip())

    def x509_certificate(self) -> x509.Certificate:
        """Return the certificate.

        Raises:
            ApiMisuseError: the anchor is a key.
        """
        if not self.certificate:
            raise ApiMisuseError(f"trust anchor {self.id} is a key")
        return x509.load_der_x509_certificate(self.certificate)


# One object for one key as long as it is in use: a Verifier remembers by the object what it has
# worked out about a key, and an Attester's next Evidence comes within minutes.
@lru_cache(maxsize=4096)
def _verification_key(public_key: bytes, source: str) -> VerificationKey:
    place = Node(None, format=source or "trust anchor")
    return VerificationKey(key_from_spki(public_key, place), source=source)
