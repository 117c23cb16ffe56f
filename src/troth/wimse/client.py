# SPDX-License-Identifier: Apache-2.0
"""HTTP clients that show their WIT, their result and a proof with every request, for httpx.

async with httpx.AsyncClient(auth=WimseAuth(credentials)) as client:
    response = await client.get("https://orders.example/")
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import httpx

from troth.clock import Clock, SystemClock, system_random
from troth.errors import ApiMisuseError
from troth.formats.http_signature import HttpMessage
from troth.formats.keys import spki
from troth.formats.signer import Signer
from troth.identity.request_signature import (
    SIGNATURE_HEADER,
    SIGNATURE_INPUT_HEADER,
    sign_message,
)
from troth.identity.workload_identity_token import WIT_HEADER, read_wit
from troth.identity.workload_proof_token import WPT_HEADER, make_wpt
from troth.wimse.check import RESULT_HEADER, Proof, bound_tokens

__all__ = ["WimseAuth", "WimseCredentials"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WimseCredentials:
    """What a caller shows.

    Attributes:
        wit: its WIT.
        signer: holds the key that the WIT names, under the algorithm that it names.
        result: the EAR (JWT) for that key, or "" where none is wanted.

    Raises:
        DecodeError: not a WIT. ApiMisuseError: the signer holds another key.
    """

    wit: str = field(repr=False)
    signer: Signer = field(repr=False)
    result: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        key = read_wit(self.wit).key
        if spki(self.signer.public_key) != spki(key) or self.signer.algorithm != key.algorithm:
            raise ApiMisuseError("the signer does not hold the WIT's key under its algorithm")


class WimseAuth(httpx.Auth):
    """Adds the headers to each request, with a proof that is made for it.

    A request must not have these headers already. Responses are not checked.

    Args:
        credentials: what to show, or a call that gives the newest.
        proof: "wpt", or "signature", which also covers method, query and body, and reads the body
            whole before it is sent.
        bound: further header fields that the proof is to cover, in lower case.
        audience: what the receiver is called, where it is not the URL without its query.
        clock: time.
        random: source of randomness.
    """

    def __init__(
        self,
        credentials: WimseCredentials | Callable[[], WimseCredentials],
        *,
        proof: Proof = "wpt",
        bound: Sequence[str] = (),
        audience: str = "",
        clock: Clock | None = None,
        random: Callable[[int], bytes] = system_random,
    ) -> None:
        self.requires_request_body = proof == "signature"
        self._credentials, self._proof = credentials, proof
        self._bound, self._audience = tuple(bound), audience
        self._clock, self._random = clock or SystemClock(), random

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Add the headers; see `httpx.Auth`."""
        given = self._credentials
        credentials = given if isinstance(given, WimseCredentials) else given()
        request.headers[WIT_HEADER] = credentials.wit
        if credentials.result:
            request.headers[RESULT_HEADER] = credentials.result
        for name, value in self._prove(request, credentials):
            request.headers[name] = value
        yield request

    def _prove(
        self, request: httpx.Request, credentials: WimseCredentials
    ) -> Sequence[tuple[str, str]]:
        stale = {WPT_HEADER, SIGNATURE_HEADER, SIGNATURE_INPUT_HEADER} & set(request.headers)
        if stale:
            raise ApiMisuseError(f"the request has the header {min(stale)} already")
        target = request.url.raw_path.decode("ascii")
        message = HttpMessage(
            method=request.method,
            target=target,
            headers=[
                (name.decode("ascii"), value.decode("latin-1"))
                for name, value in request.headers.raw
            ],
        )
        audience = self._audience or _target_uri(request.url)
        if self._proof == "wpt":
            token = make_wpt(
                credentials.wit,
                credentials.signer,
                audience=audience,
                tokens=bound_tokens(message, self._bound),
                now=self._clock.now(),
                random=self._random,
            )
            return [(WPT_HEADER, token)]
        return sign_message(
            message,
            credentials.signer,
            body=request.content,
            audience=audience,
            covered=(RESULT_HEADER, *self._bound),
            now=self._clock.now(),
            random=self._random,
        )


def _target_uri(url: httpx.URL) -> str:
    path = url.raw_path.decode("ascii").partition("?")[0]
    return f"{url.scheme}://{url.netloc.decode('ascii')}{path}"
