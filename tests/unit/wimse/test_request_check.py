# SPDX-License-Identifier: Apache-2.0
"""A request is let through by what its headers prove; each thing changed alone is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from support.ears import NOW
from support.signing import p256_signer
from support.wimse import (
    CALLER,
    ISSUER,
    MINUTE,
    ORIGIN,
    TROTH,
    WEB,
    check,
    credentials,
    request,
    result_for,
    wit_of,
    with_header,
)
from troth.errors import (
    ApiMisuseError,
    AuthorizationError,
    BindingError,
    DecodeError,
    FreshnessError,
    LimitExceededError,
    SignatureError,
    TrothError,
    UnsupportedError,
)
from troth.formats.base64url import encode_base64url
from troth.formats.http_signature import HttpMessage
from troth.formats.jose import sign_jwt
from troth.formats.strict_json import encode_json
from troth.identity.request_signature import sign_message
from troth.identity.workload_proof_token import BoundTokens, make_wpt, token_hash
from troth.verifier.result import AssuranceTier
from troth.wimse import ResultRequirement, WimseCredentials
from troth.wimse.check import MAX_HEADERS, RESULT_HEADER

OTHER = p256_signer("other")
WIT, WPT = "workload-identity-token", "workload-proof-token"
PROOFS = pytest.mark.parametrize("proof", ["wpt", "signature"])


def refused(
    error: type[TrothError],
    match: str | None,
    message: HttpMessage,
    body: bytes = b"",
    **known: Any,
) -> None:
    now = known.pop("now", NOW)
    with pytest.raises(error, match=match) as caught:
        check(**known).check(message, body=body, now=now)
    assert type(caught.value) is error


@PROOFS
def test_a_request_with_wit_proof_and_result_is_its_callers(proof: str) -> None:
    caller = check().check(request(proof, body=b"{}"), body=b"{}", now=NOW)
    assert (caller.subject, caller.proof, caller.tier) == (str(WEB), proof, "measured")


@PROOFS
def test_a_proof_is_taken_once(proof: str) -> None:
    here, message = check(), request(proof)
    here.check(message, now=NOW)
    with pytest.raises(FreshnessError, match="used before"):
        here.check(message, now=NOW)
    here.check(request(proof), now=NOW)


@PROOFS
def test_a_proof_for_another_receiver_is_refused(proof: str) -> None:
    refused(BindingError, "not to us", request(proof, url="https://others.example/pay?sum=1"))
    refused(BindingError, "not to us", request(proof), origins=["https://others.example"])
    refused(BindingError, "not to us", request(proof), origins=[])
    message = request(proof, audience="orders")
    refused(BindingError, "not to us", message)
    check(audiences=["orders"]).check(message, now=NOW)


@PROOFS
def test_a_proof_for_another_path_is_refused(proof: str) -> None:
    message = replace(request(proof), target="/admin?sum=1")
    error = BindingError if proof == "wpt" else SignatureError
    refused(error, None, message)


@pytest.mark.parametrize("changed", [{"method": "PUT"}, {"target": "/pay?sum=1000"}])
def test_a_signature_covers_method_and_query_and_a_wpt_does_not(changed: dict[str, str]) -> None:
    refused(SignatureError, "does not verify", replace(request("signature"), **changed))
    check().check(replace(request("wpt"), **changed), now=NOW)
    refused(AuthorizationError, "does not take", request("wpt"), proofs=["signature"])


def test_a_signed_request_with_another_body_is_refused() -> None:
    message = request("signature", body=b"{}")
    refused(BindingError, "another body", message, body=b"[]")
    refused(BindingError, "another body", message)
    refused(BindingError, "does not cover", with_digest(request("signature")), body=b"{}")
    refused(BindingError, "no Content-Digest", request("signature"), body=b"{}")


def with_digest(message: HttpMessage) -> HttpMessage:
    return with_header(
        message, "content-digest", "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"
    )


@PROOFS
def test_what_has_ended_or_not_begun_is_refused(proof: str) -> None:
    refused(FreshnessError, "expired", request(proof), now=NOW + MINUTE + timedelta(seconds=5))
    check().check(request(proof), now=NOW + MINUTE + timedelta(seconds=4))
    refused(FreshnessError, "future", request(proof), now=NOW - timedelta(seconds=6))


@PROOFS
def test_a_wit_that_has_ended_is_refused_though_the_proof_is_new(proof: str) -> None:
    old = wit_of(now=NOW - 10 * MINUTE)
    shown = WimseCredentials(wit=old.token, signer=CALLER, result=result_for())
    refused(FreshnessError, "Identity Token: expired", request(proof, shown=shown))


def test_a_proof_that_would_be_good_for_long_is_refused() -> None:
    shown = credentials()
    tokens = BoundTokens(others={RESULT_HEADER: shown.result})
    for minutes, good in ((10, True), (11, False)):
        proof = make_wpt(
            shown.wit,
            CALLER,
            audience=f"{ORIGIN}/pay",
            tokens=tokens,
            now=NOW,
            lifetime=minutes * MINUTE,
            random=bytes,
        )
        message = with_header(request(shown=shown), WPT, proof)
        if good:
            check().check(message, now=NOW)
        else:
            refused(FreshnessError, "for longer", message)


@PROOFS
def test_a_wit_alone_is_worth_nothing_and_so_is_one_with_the_proof_of_another_key(
    proof: str,
) -> None:
    message = request(proof)
    bare = with_header(with_header(message, WPT, None), "signature", None)
    refused(DecodeError, "one proof", with_header(bare, "signature-input", None))
    stolen = wit_of(OTHER).token
    refused(BindingError, "another key than the WIT", with_header(message, WIT, stolen))
    refused(SignatureError, "does not verify", with_header(message, WIT, stolen), results=None)


def test_two_proofs_are_refused() -> None:
    both = with_header(request("signature"), WPT, "x")
    refused(DecodeError, "one proof", both)


def test_a_wit_by_another_issuer_or_of_a_strange_trust_domain_is_refused() -> None:
    forged = wit_of(issuer=p256_signer("mallory", key_id=ISSUER.key_id)).token
    refused(SignatureError, "does not verify", with_header(request(), WIT, forged))
    refused(SignatureError, "no issuers", request(), issuers=lambda _: ())


def test_only_callers_that_are_named_get_in() -> None:
    for callers in ([], ["spiffe://mesh.example/webs"], ["spiffe://other.example/*"]):
        refused(AuthorizationError, "not among", request(), callers=callers)
    check(callers=[str(WEB)]).check(request(), now=NOW)


@pytest.mark.parametrize("name", [WIT, WPT, RESULT_HEADER, "authorization", "txn-token"])
def test_a_header_that_is_there_twice_is_refused(name: str) -> None:
    message = request(headers={"authorization": "Bearer abc", "txn-token": "def"})
    check().check(message, now=NOW)
    twice = replace(message, headers=[*message.headers, (name.title(), message.header(name) or "")])
    refused(DecodeError, "2 times", twice)


@PROOFS
def test_tokens_beside_the_wit_are_covered(proof: str) -> None:
    given = {"authorization": "Bearer abc", "txn-token": "def", "x-order": "7"}
    message = request(proof, headers=given, bound=["x-order"])
    for name in given:
        for value in ("Bearer xyz", None):
            with pytest.raises((BindingError, SignatureError, DecodeError)):
                check(bound=["x-order"]).check(with_header(message, name, value), now=NOW)
    check(bound=["x-order"]).check(message, now=NOW)
    if proof == "wpt":
        refused(BindingError, "oth names 'x-order'", message)


@PROOFS
def test_a_header_that_must_be_covered_and_is_not_is_refused(proof: str) -> None:
    message = request(proof, headers={"x-order": "7"})
    check().check(message, now=NOW)
    refused(BindingError, "not cover", message, bound=["x-order"])


@PROOFS
def test_a_result_that_was_swapped_added_or_taken_away_is_refused(proof: str) -> None:
    message = request(proof)
    error = BindingError if proof == "wpt" else SignatureError
    newer = result_for(now=NOW + timedelta(seconds=1))
    refused(error, None, with_header(message, RESULT_HEADER, newer))
    refused(BindingError, "carries no", with_header(message, RESULT_HEADER, None))
    without = WimseCredentials(wit=wit_of().token, signer=CALLER)
    added = with_header(request(proof, shown=without), RESULT_HEADER, result_for())
    refused(BindingError, "not cover", added)
    check(results=None).check(request(proof, shown=without), now=NOW)


def test_a_result_for_another_key_is_refused_though_it_was_covered() -> None:
    shown = WimseCredentials(wit=wit_of().token, signer=CALLER, result=result_for(OTHER))
    refused(BindingError, "another key than the WIT", request(shown=shown))


def test_a_result_must_be_believed_fresh_good_and_of_the_tier() -> None:
    def shown(**changes: Any) -> HttpMessage:
        return request(
            shown=WimseCredentials(wit=wit_of().token, signer=CALLER, result=result_for(**changes))
        )

    wanted = check().results
    assert wanted is not None
    refused(SignatureError, None, shown(verifier=OTHER))
    refused(SignatureError, None, shown(), results=ResultRequirement(keys=[]))
    refused(FreshnessError, None, shown(issued_at=NOW - timedelta(hours=2)))
    refused(FreshnessError, None, shown(expires_at=NOW - timedelta(seconds=6)))
    insecure = shown(troth=replace(TROTH, insecure=["simulator"]))
    refused(AuthorizationError, "production", insecure)
    check(results=replace(wanted, allow_insecure=True)).check(insecure, now=NOW)
    higher = replace(wanted, min_tier=AssuranceTier.CONFIDENTIAL)
    refused(AuthorizationError, "below confidential", shown(), results=higher)
    for tier in ("identified", "", "supreme"):
        refused(AuthorizationError, "below", shown(troth=replace(TROTH, tier=tier)))


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({"alg": "none", "typ": "wpt+jwt"}, SignatureError),
        ({"alg": "ES384", "typ": "wpt+jwt"}, SignatureError),
        ({"alg": "HS256", "typ": "wpt+jwt"}, SignatureError),
        ({"alg": "ES256", "typ": "JWT"}, UnsupportedError),
        ({"alg": "ES256"}, UnsupportedError),
    ],
)
def test_a_proof_under_another_algorithm_or_of_another_type_is_refused(
    header: dict[str, str], error: type[TrothError]
) -> None:
    message = request()
    _, payload, signature = (message.header(WPT) or "").split(".")
    token = f"{encode_base64url(encode_json(header))}.{payload}.{signature}"
    refused(error, None, with_header(message, WPT, token))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"cnf": {"jwk": {"kty": "EC"}}}, UnsupportedError, "cnf.jwk.alg"),
        ({"cnf": {}}, DecodeError, "no key in cnf.jwk"),
        ({"sub": "https://mesh.example/web"}, DecodeError, "spiffe://"),
        ({"sub": "spiffe://mesh.example"}, DecodeError, "no path"),
        ({"exp": None}, DecodeError, "exp"),
        ({"exp": True}, DecodeError, "exp"),
    ],
)
def test_a_wit_that_says_too_little_is_refused(
    change: dict[str, Any], error: type[TrothError], match: str
) -> None:
    claims = dict(wit_of().claims) | change
    token = sign_jwt(claims, ISSUER, header={"typ": "wit+jwt"})
    refused(error, match, with_header(request(), WIT, token))


@pytest.mark.parametrize("alg", ["none", "HS256", "ES384", "EdDSA", None])
def test_a_key_under_an_algorithm_that_is_not_its_own_is_refused(alg: str | None) -> None:
    claims = dict(wit_of().claims)
    claims["cnf"] = {"jwk": {**claims["cnf"]["jwk"], "alg": alg}}  # type: ignore[index]
    token = sign_jwt(claims, ISSUER, header={"typ": "wit+jwt"})
    with pytest.raises((UnsupportedError, SignatureError, DecodeError)):
        check().check(with_header(request(), WIT, token), now=NOW)


def test_a_private_key_in_a_wit_is_refused() -> None:
    claims = dict(wit_of().claims)
    claims["cnf"] = {"jwk": {**claims["cnf"]["jwk"], "d": "AAAA"}}  # type: ignore[index]
    token = sign_jwt(claims, ISSUER, header={"typ": "wit+jwt"})
    refused(DecodeError, "more than a public key", with_header(request(), WIT, token))


def test_a_jwt_of_another_type_by_the_same_issuer_is_no_wit() -> None:
    token = sign_jwt(dict(wit_of().claims), ISSUER)
    refused(UnsupportedError, "another kind", with_header(request(), WIT, token))


def test_too_much_is_refused_before_it_is_read() -> None:
    message = request()
    refused(LimitExceededError, "max_field_bytes", with_header(message, WIT, "a" * 16_385))
    refused(LimitExceededError, "max_bytes", with_header(message, WIT, "a" * 8193))
    refused(LimitExceededError, "max_bytes", with_header(message, WPT, "a.b." + "c" * 4093))
    many = replace(message, headers=[*message.headers, *[("x", "y")] * MAX_HEADERS])
    refused(LimitExceededError, "max_headers", many)


def test_a_signature_of_another_tag_or_with_a_key_id_is_refused() -> None:
    message = request("signature")
    inputs = message.header("signature-input") or ""
    other = inputs.replace("wimse-workload-to-workload", "another")
    refused(DecodeError, "0 signatures", with_header(message, "signature-input", other))
    named = f'{inputs};keyid="k"'
    refused(UnsupportedError, "keyid", with_header(message, "signature-input", named))
    twice = f"{inputs}, b{inputs.removeprefix('wimse')}"
    refused(DecodeError, "2 signatures", with_header(message, "signature-input", twice))


@pytest.mark.parametrize("name", ["@method", "@query", "@path", "workload-identity-token"])
def test_a_signature_that_covers_too_little_is_refused(name: str) -> None:
    message = request("signature")
    inputs = (message.header("signature-input") or "").replace(' "@request-target"', "")
    less = inputs.replace(f'"{name}"', "").replace("  ", " ").replace("( ", "(").replace(" )", ")")
    assert less != inputs
    refused(BindingError, "does not cover", with_header(message, "signature-input", less))


def test_a_signed_response_is_taken_for_its_request() -> None:
    # the same functions, from the other side; the vectors of the draft have one as well
    message = request("signature")
    response = HttpMessage(
        status=200, request=message, headers=[(WIT, wit_of().token), ("content-type", "text/plain")]
    )
    added = sign_message(response, CALLER, body=b"ok", request_nonce="n", now=NOW, random=bytes)
    assert [name for name, _ in added] == ["content-digest", "signature-input", "signature"]


def test_a_misspelt_check_is_told_at_once() -> None:
    with pytest.raises(ApiMisuseError, match="not one text"):
        check(callers="spiffe://mesh.example/*")
    with pytest.raises(ApiMisuseError, match="has no path"):
        check(origins=["https://orders.example/"])


def test_credentials_whose_signer_holds_another_key_are_refused() -> None:
    with pytest.raises(ApiMisuseError, match="does not hold"):
        WimseCredentials(wit=wit_of(OTHER).token, signer=CALLER)


def test_a_wit_never_outlives_the_result_and_is_of_its_own_trust_domain() -> None:
    wit = wit_of(ttl=timedelta(hours=1), not_after=NOW + MINUTE)
    assert wit.expires_at == NOW + MINUTE
    with pytest.raises(FreshnessError):
        wit_of(not_after=NOW)


def test_a_token_is_hashed_without_the_spaces_around_it() -> None:
    assert token_hash(" a\t") == token_hash("a") != token_hash("b")
