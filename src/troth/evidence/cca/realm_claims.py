# SPDX-License-Identifier: Apache-2.0
"""The claims of a CCA realm token, signed by the Realm Attestation Key (RAK) that it carries.

Three generations are in the field. They differ in how the RAK is written and in what was added:

============================  ====================  ==============================================
profile claim (265)           RAK (44237)           more
============================  ====================  ==============================================
none                          SEC1 point, 97 bytes  some firmware adds 256 and 44243 already
tag:arm.com,2023:realm#1.0.0  COSE_Key              memory encryption policy as text in 44241
tag:arm.com,2024:realm#2.0.0  COSE_Key              realm instance id (256) and memory encryption
                                                    policy as a number (44243); both must be there
============================  ====================  ==============================================

Source: Arm RMM Specification (DEN0137) section A7.2.3.1; draft-ffm-rats-cca-token section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from troth.errors import UnsupportedError
from troth.evidence.claim_reader import DIGEST_SIZES, ClaimReader
from troth.formats.quoting import shown

__all__ = ["REALM_HASHES", "REALM_PROFILES", "RealmClaims", "decode_realm_claims"]

_FORMAT = "CCA realm claims"

REALM_1_0_0 = "tag:arm.com,2023:realm#1.0.0"
REALM_2_0_0 = "tag:arm.com,2024:realm#2.0.0"
REALM_PROFILES = (REALM_2_0_0, REALM_1_0_0, "")
"""Values of the profile claim that Troth knows, "" for none; the first is the one to write."""

REALM_HASHES: Mapping[str, str] = {"sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}
"""Hashes that may bind the RAK to the platform: IANA names, and what hashlib calls them."""

RAW_RAK_SIZE = 97
"""Octets of an uncompressed SEC1 point on P-384."""

_REALM_EXTENSIBLE_MEASUREMENTS = 4

_CHALLENGE, _INSTANCE_ID, _PROFILE = 10, 256, 265
_RPV, _HASH_ALGORITHM, _PUBLIC_KEY, _RIM, _REMS = 44235, 44236, 44237, 44238, 44239
_PUBLIC_KEY_HASH, _MEC_POLICY_TEXT, _MEC_POLICY, _LFA_POLICY = 44240, 44241, 44243, 44244
_DEVICES_TOKEN_HASH = 44257
_KNOWN = frozenset(
    {
        _CHALLENGE,
        _INSTANCE_ID,
        _PROFILE,
        _RPV,
        _HASH_ALGORITHM,
        _PUBLIC_KEY,
        _RIM,
        _REMS,
        _PUBLIC_KEY_HASH,
        _MEC_POLICY,
        _LFA_POLICY,
        _DEVICES_TOKEN_HASH,
    }
)
_KNOWN_1_0_0 = (_KNOWN - {_MEC_POLICY}) | {_MEC_POLICY_TEXT}

_MEC_POLICIES = {0: "shared", 1: "private"}
_LFA_POLICIES = {0: "disallow", 1: "allow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmClaims:
    """What the Realm Management Monitor says of one realm. Not to be believed before `verify()`.

    Attributes:
        profile: one of REALM_PROFILES; "" where the token has none.
        challenge: the caller's challenge, zero-padded to 64 octets.
        personalization_value: what the realm's owner gave at its creation, 64 octets (RPV).
        hash_algorithm: what the measurements are made with, as the RMM names it.
        public_key: the RAK in the octets of the claim: what the platform's nonce is a hash of.
        public_key_hash_algorithm: that hash, one of REALM_HASHES.
        initial_measurement: of the realm's memory and parameters at activation (RIM).
        extensible_measurements: four registers that the realm's own software extends (REM).
        instance_id: random for each realm that is created, 33 octets; b"" where not said.
        mec_policy: "shared" or "private" memory encryption context; "" where not said.
        lfa_policy: "allow" or "disallow" live firmware activation; "" where not said.
        devices_token_hash: of the token about devices assigned to the realm; b"" where not said.
        unrecognised: claims that Troth does not know, key as text, fit for JSON.
    """

    profile: str
    challenge: bytes
    personalization_value: bytes
    hash_algorithm: str
    public_key: bytes
    public_key_hash_algorithm: str
    initial_measurement: bytes
    extensible_measurements: tuple[bytes, ...]
    instance_id: bytes = b""
    mec_policy: str = ""
    lfa_policy: str = ""
    devices_token_hash: bytes = b""
    unrecognised: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the claims as JSON, Rego and people see them (docs/reference/schemes/cca.md)."""
        claims: dict[str, object] = {
            "cca-realm-challenge": self.challenge.hex(),
            "cca-realm-personalization-value": self.personalization_value.hex(),
            "cca-realm-hash-algo-id": self.hash_algorithm,
            "cca-realm-public-key": self.public_key.hex(),
            "cca-realm-public-key-hash-algo-id": self.public_key_hash_algorithm,
            "cca-realm-initial-measurement": self.initial_measurement.hex(),
            "cca-realm-extensible-measurements": [
                each.hex() for each in self.extensible_measurements
            ],
        }
        if self.profile:
            claims["profile"] = self.profile
        if self.instance_id:
            claims["cca-realm-instance-id"] = self.instance_id.hex()
        if self.mec_policy:
            claims["cca-realm-mec-policy"] = self.mec_policy
        if self.lfa_policy:
            claims["cca-realm-lfa-policy"] = self.lfa_policy
        if self.devices_token_hash:
            claims["cca-realm-devices-token-hash"] = self.devices_token_hash.hex()
        if self.unrecognised:
            claims["unrecognised"] = self.unrecognised
        return claims


def decode_realm_claims(claims: object) -> RealmClaims:
    """Check every claim of a decoded realm claims map.

    Does not look into the RAK: whether it is a key shows when the signature is verified.

    Raises:
        DecodeError: a claim is missing, or has another type, size or form; the error names it.
        UnsupportedError: a profile, or a hash for binding the RAK, that Troth does not know.
    """
    reader = ClaimReader(claims, format=_FORMAT)
    profile = _profile(reader)
    return RealmClaims(
        profile=profile,
        challenge=reader.octets(_CHALLENGE, "cca-realm-challenge", (64,)),
        personalization_value=reader.octets(_RPV, "cca-realm-personalization-value", (64,)),
        hash_algorithm=reader.text(_HASH_ALGORITHM, "cca-realm-hash-algo-id"),
        public_key=_public_key(reader, profile),
        public_key_hash_algorithm=_public_key_hash(reader),
        initial_measurement=reader.octets(_RIM, "cca-realm-initial-measurement", DIGEST_SIZES),
        extensible_measurements=_extensible_measurements(reader),
        instance_id=reader.ueid(
            _INSTANCE_ID, "cca-realm-instance-id", required=profile == REALM_2_0_0
        ),
        mec_policy=_mec_policy(reader, profile),
        lfa_policy=_choice(reader, _LFA_POLICY, "cca-realm-lfa-policy", _LFA_POLICIES),
        devices_token_hash=reader.octets(
            _DEVICES_TOKEN_HASH, "cca-realm-devices-token-hash", DIGEST_SIZES, required=False
        ),
        unrecognised=reader.others(_KNOWN_1_0_0 if profile == REALM_1_0_0 else _KNOWN),
    )


def _profile(reader: ClaimReader) -> str:
    profile = reader.text(_PROFILE, "profile", required=False)
    # An empty text is not "no profile": that would let a token choose its generation.
    if profile not in REALM_PROFILES or (not profile and reader.has(_PROFILE)):
        known = ", ".join(name for name in REALM_PROFILES if name)
        raise UnsupportedError(
            f"claim {_PROFILE} (profile) is {shown(profile)}; known are {known}, or no such claim",
            format=_FORMAT,
        )
    return profile


def _public_key(reader: ClaimReader, profile: str) -> bytes:
    if not profile:
        return reader.octets(_PUBLIC_KEY, "cca-realm-public-key", (RAW_RAK_SIZE,))
    return reader.octets(_PUBLIC_KEY, "cca-realm-public-key", None)


def _public_key_hash(reader: ClaimReader) -> str:
    name = reader.text(_PUBLIC_KEY_HASH, "cca-realm-public-key-hash-algo-id")
    if name not in REALM_HASHES:
        raise UnsupportedError(
            f"claim {_PUBLIC_KEY_HASH} (cca-realm-public-key-hash-algo-id) is {shown(name)}; "
            f"known are {', '.join(REALM_HASHES)}",
            format=_FORMAT,
        )
    return name


def _extensible_measurements(reader: ClaimReader) -> tuple[bytes, ...]:
    name = "cca-realm-extensible-measurements"
    entries = reader.array(_REMS, name)
    if len(entries) != _REALM_EXTENSIBLE_MEASUREMENTS:
        raise reader.error(_REMS, name, f"has {len(entries)} entries; expected 4")
    measurements = []
    for index, entry in enumerate(entries):
        if type(entry) is not bytes or len(entry) not in DIGEST_SIZES:
            raise reader.error(
                _REMS, name, f"entry {index} is not a byte string of 32, 48 or 64 octets"
            )
        measurements.append(entry)
    return tuple(measurements)


def _mec_policy(reader: ClaimReader, profile: str) -> str:
    name = "cca-realm-mec-policy"
    if profile != REALM_1_0_0:
        return _choice(reader, _MEC_POLICY, name, _MEC_POLICIES, required=profile == REALM_2_0_0)
    policy = reader.text(_MEC_POLICY_TEXT, name, required=False)
    if reader.has(_MEC_POLICY_TEXT) and policy not in _MEC_POLICIES.values():
        raise reader.error(
            _MEC_POLICY_TEXT, name, f'is {shown(policy)}; expected "shared" or "private"'
        )
    return policy


def _choice(
    reader: ClaimReader,
    key: int,
    name: str,
    choices: Mapping[int, str],
    *,
    required: bool = False,
) -> str:
    if not required and not reader.has(key):
        return ""
    value = reader.integer(key, name)
    if value not in choices:
        expected = " or ".join(f"{number} ({word})" for number, word in choices.items())
        raise reader.error(key, name, f"is {value}; expected {expected}")
    return choices[value]
