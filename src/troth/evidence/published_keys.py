# SPDX-License-Identifier: Apache-2.0
"""Attestation keys whose private half anybody can download, by thumbprint.

Reference firmware and test suites sign with them, and evaluation boards ship with them. Evidence
under such a key proves nothing, and a trust anchor for one is a door left open.

The list holds thumbprints, never keys (RFC 7638, SHA-256, lower-case hex). To add one, run
`thumbprint()` on it and say where it is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["PUBLISHED_KEYS"]

PUBLISHED_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "9fbc82b47c93efda88672e09d2f5e7e2a5533690be4dc1c1bbbe7400a1e3156d": (
            "IAK of RFC 9783 appendix A.1, default of Trusted Firmware-M"
        ),
        "5e045056fd019751ea9dc3f5b06e9fb8b1d17112e4113227ac51c2a169bf25a1": (
            "symmetric IAK of RFC 9783 appendix A.2, default of Trusted Firmware-M"
        ),
        "4e6d3069116a26e0ea53604b086901d66c19a19e306c9348b115da644f6815ce": (
            "sample CPAK of Trusted Firmware-A, TF-RMM and iat-verifier (cca_platform.pem)"
        ),
        "ce51ca19d8708a2278e06717b9f35207adf4157681edd16b0ab6bf95cd68bedc": (
            "sample RAK of Trusted Firmware-A, TF-RMM and iat-verifier (cca_realm.pem)"
        ),
        "d5a61e04bedc10caba51e1c1d6e17ea9b3969bf2b2a1df70b5a49237560905a9": (
            "second sample RAK of iat-verifier (cca_realm2.pem)"
        ),
        "727f88fd634c0a57a1895a79d62ff4569384356d6ea447ab03cb046a6e619feb": (
            "P-256 key of the Veraison test suites (ec.p256.jwk)"
        ),
        "02e000e270a2a9176986e3641e7c1ff6283b892514735d49e1c02b82199dcbdc": (
            "P-384 key of the Veraison test suites (ec.p384.jwk, example-rak)"
        ),
        "c4d9df3854cc8194913372ad18742a6af646586174d057b9e0b641602231afcf": (
            "Verifier key of the Veraison EAR examples (skey.json)"
        ),
        "b6b0d3c21cf13e6782cc718aa9a42bbebe6483e40f392b9a801f4a45a08c26fa": (
            "trust anchor of the Veraison sample CoRIMs (corim-psa-valid)"
        ),
        "a4ee41cddee1919a41e65bc81fa2f342158f2eba2fdcfdafdadf68d7c3340d1d": (
            "trust anchor of the Veraison sample CoRIMs (corim-psa-bad-class)"
        ),
        "ecdac4bf945760f44b7208a575133240636c4f9dd79bc740f93fd6212901ac7a": (
            "trust anchor of the Veraison sample CoRIMs (psa-valid, cca-platform-valid)"
        ),
        "3e0dbf021206d64d2647253eaa6b0ce8a47ff712dd9aba34e283859dd8114643": (
            "trust anchor of the Veraison sample CoRIMs (corim-parsec-tpm-valid)"
        ),
        "133cba30f13dd3d93a6ac6371353054bf12a6633c50014a5124cf6511a65b982": (
            "attestation key of the Veraison EnactTrust samples (basic.pem)"
        ),
        "f4d198af75291c1a0746c16e65290226155dc5f9c92a784d376aeea60e247e49": (
            "caller's key in the examples of draft-ietf-wimse-http-signature (svc-a-key)"
        ),
        "43ce3a529d028a87917e7d34ff28ea6958722b84a008a6fe076ba14c9678e3ea": (
            "callee's key in the examples of draft-ietf-wimse-http-signature (svc-b-key)"
        ),
    }
)
"""Thumbprint of each published key, to where it is published."""
