# SPDX-License-Identifier: Apache-2.0
"""A program that uses py-spiffe as its users do, one command a line, one JSON answer a line.

It is a process of its own: gRPC's C core and fork do not go together.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from spiffe import JwtSource, WorkloadApiClient, X509Source

_SECONDS = 20


def main() -> None:
    """Read commands until the end of the input."""
    client, source, jwt_source = WorkloadApiClient(), None, None
    for line in sys.stdin:
        name, *arguments = line.split()
        try:
            if name == "source":
                source = X509Source(timeout_in_seconds=_SECONDS)
                answer: Any = _svid(source.svid)
            elif name == "rotated" and source is not None:
                answer = _rotated(source, arguments[0])
            elif name == "jwt_source":
                jwt_source = JwtSource(timeout_in_seconds=_SECONDS)
                answer = jwt_source.fetch_svid(audience=set(arguments)).token
            else:
                answer = _call(client, name, arguments)
        except Exception as exc:  # noqa: BLE001 - the test decides what is right
            answer = {"error": type(exc).__name__, "text": str(exc)}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer
    for each in (source, jwt_source, client):
        if each is not None:
            each.close()


def _call(client: WorkloadApiClient, name: str, arguments: list[str]) -> Any:
    if name == "svids":
        return [_svid(each) for each in client.fetch_x509_svids()]
    if name == "bundles":
        bundles = client.fetch_x509_bundles().bundles
        return {b.trust_domain.name: len(b.x509_authorities) for b in bundles}
    if name == "jwt_bundles":
        bundles = client.fetch_jwt_bundles().bundles
        return {b.trust_domain.name: len(b.jwt_authorities) for b in bundles}
    if name == "jwt":
        return client.fetch_jwt_svid(audience=set(arguments)).token
    if name == "validate":
        token, audience = arguments
        return str(client.validate_jwt_svid(token, audience=audience).spiffe_id)
    raise ValueError(name)


def _rotated(source: X509Source, serial: str) -> Any:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        svid = _svid(source.svid)
        if svid["serial"] != serial:
            return svid
        time.sleep(0.005)
    raise TimeoutError("no rotation was seen")


def _svid(svid: Any) -> dict[str, str]:
    return {"id": str(svid.spiffe_id), "serial": f"{svid.leaf.serial_number:x}"}


if __name__ == "__main__":
    main()
