# SPDX-License-Identifier: Apache-2.0
"""The simulated platform: an Attester whose hardware is a file.

It makes genuine tokens: everything about them verifies, but for the one thing that hardware is
for. The private keys are at hand, so its word is worth nothing. Its implementation ids start with
TROTH-INSECURE-SIMULATOR and every Verifier of ours refuses them unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from troth.errors import ApiMisuseError
from troth.evidence.anchor import ECDSA, HMAC
from troth.evidence.attester import AttesterDescription
from troth.evidence.cca.evidence import COLLECTION_TAG, RECORDS_TAG
from troth.evidence.cca.platform_claims import decode_platform_claims
from troth.evidence.cca.realm_claims import REALM_HASHES, decode_realm_claims
from troth.evidence.claim_reader import DIGEST_SIZES
from troth.evidence.insecure import SIMULATOR_MARK
from troth.evidence.psa.claims import PROFILES, decode_claims
from troth.evidence.simulator import tokens
from troth.evidence.simulator.keys import (
    SimulatedKeys,
    generate_mac_key,
    generate_signing_key,
)
from troth.evidence.simulator.options import CcaOptions, PsaOptions, SimulatedComponent
from troth.formats.eat import eat_media_type
from troth.formats.signer import LocalSigner

__all__ = ["BOOT_SESSION_SIZE", "SimulatedPlatform", "SimulatedReference"]

BOOT_SESSION_SIZE = 32
"""Octets drawn at each boot."""

_CHALLENGE_SIZE = 64
_MODEL_SIZE = 32 - len(SIMULATOR_MARK)
_CCA_ALGORITHM = "ES384"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedReference:
    """What a supply chain would say of the platform as it is now: the ingredients of a CoRIM.

    Attributes:
        scheme: "psa" or "cca".
        implementation_id: class id.
        instance_id: UEID.
        public_key_pem: the attestation key, SubjectPublicKeyInfo; "" where it is symmetric.
        symmetric_key: the attestation key where it is symmetric, else b"".
        components: the firmware.
        config: platform config (CCA), else b"".
        rim, rems, personalization_value: the realm (CCA), else empty.
    """

    scheme: str
    implementation_id: bytes
    instance_id: bytes
    public_key_pem: str
    symmetric_key: bytes = field(default=b"", repr=False)
    components: tuple[SimulatedComponent, ...]
    config: bytes = b""
    rim: bytes = b""
    rems: tuple[bytes, ...] = ()
    personalization_value: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPlatform:
    """One platform in one boot session; implements the Attester port. INSECURE by nature.

    It never changes: rebooting it or changing its firmware gives another value. To change anything
    else, use `dataclasses.replace(platform, options=…)`.

    Attributes:
        options: what it is like.
        keys: its private keys.
        boot_session: 32 octets drawn at boot: the PSA boot seed, or the random part of the realm
            instance id.
        source: where it came from, for people.

    Raises:
        ApiMisuseError, DecodeError: on construction, where our own decoders would refuse its
            tokens.
    """

    options: PsaOptions | CcaOptions
    keys: SimulatedKeys
    boot_session: bytes
    source: str = "memory"

    def __post_init__(self) -> None:
        if len(self.boot_session) != BOOT_SESSION_SIZE:
            raise ApiMisuseError(f"a boot session has {BOOT_SESSION_SIZE} octets")
        _check_options(self.options)
        _check_keys(self.options, self.keys)
        # What we issue is validated by our own validator first.
        challenge = bytes(_CHALLENGE_SIZE)
        if isinstance(self.options, PsaOptions):
            decode_claims(self._psa_claims(self.options, challenge))
        else:
            decode_platform_claims(self._platform_claims(self.options))
            decode_realm_claims(self._realm_claims(self.options, challenge))

    @classmethod
    def create(
        cls,
        options: PsaOptions | CcaOptions,
        *,
        random: Callable[[int], bytes],
        keys: SimulatedKeys | None = None,
    ) -> SimulatedPlatform:
        """Make a platform and boot it for the first time.

        Args:
            options: what it is like.
            random: gives that many octets; it alone determines keys and boot session.
            keys: its keys, where they are not to be drawn.
        """
        if keys is None:
            keys = _draw_keys(options, random)
        return cls(options=options, keys=keys, boot_session=random(BOOT_SESSION_SIZE))

    @property
    def scheme(self) -> str:
        """The word psa or cca."""
        return "psa" if isinstance(self.options, PsaOptions) else "cca"

    @property
    def media_type(self) -> str:
        """Under which its tokens travel."""
        options = self.options
        if isinstance(options, PsaOptions):
            profile = PROFILES[options.profile].media_type_profile
        else:
            profile = options.platform_profile
        return eat_media_type(profile)

    @property
    def challenge_size(self) -> int:
        """Octets of challenge to give; PSA takes 32 and 48 as well, CCA whatever is shorter."""
        return _CHALLENGE_SIZE

    @property
    def implementation_id(self) -> bytes:
        """The mark of the simulator and the model, 32 octets."""
        return SIMULATOR_MARK + self.options.model.encode().ljust(_MODEL_SIZE, b"\0")

    @property
    def instance_id(self) -> bytes:
        """UEID of the attestation key."""
        return self.keys.instance_id

    def attest(self, challenge: bytes) -> bytes:
        """Return a token with this challenge.

        Raises:
            ApiMisuseError: a size that such hardware refuses.
        """
        options, keys = self.options, self.keys
        if isinstance(options, PsaOptions):
            if len(challenge) not in DIGEST_SIZES:
                raise ApiMisuseError(
                    f"a PSA challenge has 32, 48 or 64 octets, not {len(challenge)}"
                )
            return tokens.psa_token(
                self._psa_claims(options, challenge),
                keys.attestation,
                algorithm=options.algorithm,
            )
        if not 1 <= len(challenge) <= _CHALLENGE_SIZE:
            raise ApiMisuseError(f"a CCA challenge has 1 to 64 octets, not {len(challenge)}")
        cpak, rak = self._cca_keys()
        return tokens.cca_token(
            self._platform_claims(options),
            self._realm_claims(options, challenge),
            cpak=cpak,
            rak=rak,
            wrapper_tag=options.wrapper_tag,
        )

    def describe(self) -> AttesterDescription:
        """Say what this platform is."""
        options = self.options
        details = {
            "implementation id": self.implementation_id.hex(),
            "boot session": self.boot_session.hex(),
            "lifecycle": f"{options.lifecycle:#06x}",
            "components": ", ".join(
                f"{each.name} {each.version}".strip() for each in options.components
            ),
        }
        if isinstance(options, CcaOptions):
            details["realm initial measurement"] = options.rim.hex()
        return AttesterDescription(
            scheme=self.scheme,
            media_type=self.media_type,
            source=f"platform simulator, {self.source}",
            challenge_size=self.challenge_size,
            identity=self.instance_id.hex(),
            details=details,
            insecure=("platform simulator",),
        )

    def reboot(self, *, random: Callable[[int], bytes]) -> SimulatedPlatform:
        """Return the same platform in its next boot session; keys and firmware stay."""
        return replace(self, boot_session=random(BOOT_SESSION_SIZE))

    def with_measurement(self, index: int, digest: bytes) -> SimulatedPlatform:
        """Return the platform with another measurement of one component: changed firmware.

        Raises:
            ApiMisuseError: no such component.
        """
        components = list(self.options.components)
        if not 0 <= index < len(components):
            raise ApiMisuseError(f"component {index}, but there are {len(components)}")
        components[index] = replace(components[index], digest=digest)
        # One call for each kind: replace() keeps the type only where it sees it.
        options: PsaOptions | CcaOptions
        if isinstance(self.options, PsaOptions):
            options = replace(self.options, components=tuple(components))
        else:
            options = replace(self.options, components=tuple(components))
        return replace(self, options=options)

    def reference(self) -> SimulatedReference:
        """Return what an Endorser would publish about the platform as it is now."""
        options, key = self.options, self.keys.attestation
        reference = SimulatedReference(
            scheme=self.scheme,
            implementation_id=self.implementation_id,
            instance_id=self.instance_id,
            public_key_pem=_public_pem(key) if not isinstance(key, bytes) else "",
            symmetric_key=key if isinstance(key, bytes) else b"",
            components=options.components,
        )
        if isinstance(options, PsaOptions):
            return reference
        return replace(
            reference,
            config=options.config,
            rim=options.rim,
            rems=options.rems,
            personalization_value=options.personalization_value.ljust(64, b"\0"),
        )

    def _psa_claims(self, options: PsaOptions, challenge: bytes) -> tokens.Claims:
        return tokens.psa_claims(
            options,
            implementation_id=self.implementation_id,
            instance_id=self.instance_id,
            boot_seed=self.boot_session,
            challenge=challenge,
        )

    def _platform_claims(self, options: CcaOptions) -> tokens.Claims:
        return tokens.platform_claims(
            options,
            implementation_id=self.implementation_id,
            instance_id=self.instance_id,
            rak=self._rak(options),
        )

    def _realm_claims(self, options: CcaOptions, challenge: bytes) -> tokens.Claims:
        return tokens.realm_claims(
            options,
            instance_id=b"\x01" + self.boot_session,
            rak=self._rak(options),
            challenge=challenge,
        )

    def _rak(self, options: CcaOptions) -> bytes:
        return tokens.realm_attestation_key(
            self._cca_keys()[1], realm_profile=options.realm_profile
        )

    def _cca_keys(self) -> tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey]:
        cpak, rak = self.keys.attestation, self.keys.realm
        if isinstance(cpak, bytes) or rak is None:
            raise ApiMisuseError("a CCA platform needs two elliptic-curve keys: CPAK and RAK")
        return cpak, rak


def _check_options(options: PsaOptions | CcaOptions) -> None:
    model = options.model
    if not model.isascii() or not model.isprintable() or not 1 <= len(model) <= _MODEL_SIZE:
        raise ApiMisuseError(f"model {model!r}: expected 1 to {_MODEL_SIZE} ASCII characters")
    choices: list[tuple[str, object, Collection[object]]]
    if isinstance(options, PsaOptions):
        choices = [
            ("profile", options.profile, PROFILES),
            ("algorithm", options.algorithm, ECDSA | HMAC),
        ]
    else:
        choices = [
            ("wrapper_tag", options.wrapper_tag, (RECORDS_TAG, COLLECTION_TAG)),
            ("rak_hash", options.rak_hash, REALM_HASHES),
        ]
    for name, value, accepted in choices:
        if value not in accepted:
            raise ApiMisuseError(
                f"{name} {value!r}: expected one of {', '.join(map(str, accepted))}"
            )


def _check_keys(options: PsaOptions | CcaOptions, keys: SimulatedKeys) -> None:
    if isinstance(options, CcaOptions):
        if isinstance(keys.attestation, bytes) or keys.realm is None:
            raise ApiMisuseError("a CCA platform needs two elliptic-curve keys: CPAK and RAK")
        return
    if isinstance(keys.attestation, bytes):
        fits = options.algorithm in HMAC
    else:
        fits = LocalSigner(keys.attestation).algorithm == options.algorithm
    if not fits:
        raise ApiMisuseError(f"the attestation key is not one for {options.algorithm}")


def _draw_keys(options: PsaOptions | CcaOptions, random: Callable[[int], bytes]) -> SimulatedKeys:
    if isinstance(options, CcaOptions):
        return SimulatedKeys(
            attestation=generate_signing_key(_CCA_ALGORITHM, random),
            realm=generate_signing_key(_CCA_ALGORITHM, random),
        )
    if options.algorithm in HMAC:
        return SimulatedKeys(attestation=generate_mac_key(options.algorithm, random))
    return SimulatedKeys(attestation=generate_signing_key(options.algorithm, random))


def _public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
