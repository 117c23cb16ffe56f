# SPDX-License-Identifier: Apache-2.0
"""The examples of the WIMSE drafts and of WIT-SVID, taken by what takes requests in Troth."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.vectors import vectors
from troth.errors import BindingError, DecodeError, FreshnessError, SignatureError
from troth.formats.http_signature import HttpMessage
from troth.formats.jwk import decode_jwk
from troth.formats.verification_key import VerificationKey
from troth.identity.replay_cache import MemoryReplayCache
from troth.identity.request_signature import verify_message
from troth.identity.spiffe_id import TrustDomain
from troth.identity.workload_identity_token import read_wit, verify_wit
from troth.identity.workload_proof_token import BoundTokens, verify_wpt

# The public half of the issuer's key that the drafts publish.
ISSUER = decode_jwk(
    {
        "kty": "EC",
        "kid": "June 5",
        "crv": "P-256",
        "x": "kXqnA2Op7hgd4zRMbw0iFcc_hDxUxhojxOFVGjE2gks",
        "y": "n__VndPMR021-59UAs0b9qDTFT-EZtT6xSNs_xFskLo",
    },
    format="issuer",
)
PROOF_AT = datetime.fromtimestamp(1745510000, UTC)
SIGNED_AT = datetime.fromtimestamp(1785155800, UTC)
CALLED = "https://svcb.example.com/gimme-ice-cream"


@pytest.fixture
def folder() -> Path:
    return vectors("wimse-spiffe")


def issuers(trust_domain: TrustDomain) -> list[VerificationKey]:
    return [ISSUER] if trust_domain.name == "example.com" else []


def message(text: str, **known: object) -> tuple[HttpMessage, bytes]:
    """Read an HTTP/1.1 message of the drafts."""
    head, _, body = text.partition("\n\n")
    first, *lines = head.splitlines()
    headers = [(name, value.strip()) for name, _, value in (x.partition(":") for x in lines)]
    words = first.split()
    if first.startswith("HTTP/"):
        parsed = HttpMessage(status=int(words[1]), headers=headers)
    else:
        parsed = HttpMessage(method=words[0], target=words[1], headers=headers)
    return replace(parsed, **known), body.encode()


def test_the_drafts_wit_and_wpt_are_taken_together(folder: Path) -> None:
    request, _ = message((folder / "wpt-request.txt").read_text())
    wit = verify_wit(request.header("workload-identity-token") or "", issuers, now=PROOF_AT)
    assert wit.subject == "wimse://example.com/specific-workload"
    verify_wpt(
        request.header("workload-proof-token") or "",
        wit,
        audiences={"https://workload.example.com/path"},
        tokens=BoundTokens(access="16_mAd0GiwaZokU26_0902100"),
        replay=MemoryReplayCache(),
        now=PROOF_AT,
    )


def test_the_drafts_wpt_is_not_taken_with_another_access_token(folder: Path) -> None:
    wit = read_wit((folder / "wit.txt").read_text().strip())
    for access in ("16_mAd0GiwaZokU26_0902101", ""):
        with pytest.raises(BindingError, match="access token"):
            verify_wpt(
                (folder / "wpt.txt").read_text().strip(),
                wit,
                audiences={"https://workload.example.com/path"},
                tokens=BoundTokens(access=access),
                replay=MemoryReplayCache(),
                now=PROOF_AT,
            )


def test_the_drafts_wit_is_of_no_other_issuer_and_ends(folder: Path) -> None:
    token = (folder / "wit.txt").read_text().strip()
    with pytest.raises(SignatureError, match="no issuers"):
        verify_wit(token, lambda _: [], now=PROOF_AT)
    with pytest.raises(FreshnessError, match="expired"):
        verify_wit(token, issuers, now=datetime.fromtimestamp(1745512510, UTC))


def test_the_wit_svid_of_spiffe_is_read_and_names_its_key(folder: Path) -> None:
    wit = read_wit((folder / "wit-svid-appendix-a.jwt").read_text().strip())
    assert (wit.subject, wit.key.algorithm) == ("spiffe://example.com/my-workload", "ES256")


def test_the_drafts_signed_request_verifies(folder: Path) -> None:
    request, body = message((folder / "sigs-request.txt").read_text())
    wit = read_wit(request.header("workload-identity-token") or "")
    used = verify_message(
        request,
        wit,
        body=body.strip(),
        audiences={CALLED},
        replay=MemoryReplayCache(),
        now=SIGNED_AT,
    )
    assert used.values["nonce"] == "abcd1111"
    assert used.values["wimse-sign-response"] is True


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"method": "POST"}, SignatureError),
        ({"target": "/gimme-ice-cream?flavor=lemon"}, SignatureError),
        ({"target": "/gimme-all?flavor=vanilla"}, SignatureError),
    ],
)
def test_the_drafts_signed_request_does_not_verify_changed(
    folder: Path, changed: dict[str, object], error: type[Exception]
) -> None:
    request, _ = message((folder / "sigs-request.txt").read_text(), **changed)
    wit = read_wit(request.header("workload-identity-token") or "")
    with pytest.raises(error):
        verify_message(
            request,
            wit,
            body=b"",
            audiences={CALLED},
            replay=MemoryReplayCache(),
            now=SIGNED_AT,
        )


def test_the_drafts_signed_response_verifies_for_its_request_only(folder: Path) -> None:
    request, _ = message((folder / "sigs-request.txt").read_text())
    text = (folder / "sigs-response.txt").read_text()
    response, body = message(text, request=request)
    wit = read_wit(response.header("workload-identity-token") or "")

    def verify(body: bytes, nonce: str, response: HttpMessage = response) -> None:
        verify_message(
            response,
            wit,
            body=body,
            request_nonce=nonce,
            replay=MemoryReplayCache(),
            now=SIGNED_AT,
        )

    verify(body, "abcd1111")
    with pytest.raises(BindingError, match="another request"):
        verify(body, "abcd1112")
    with pytest.raises(BindingError, match="another body"):
        verify(body + b"!", "abcd1111")
    with pytest.raises(DecodeError, match="no response"):
        verify(body, "abcd1111", replace(response, request=None))
