# SPDX-License-Identifier: Apache-2.0
"""Attested identity in HTTP headers, for services behind hops that end TLS.

    client = httpx.AsyncClient(auth=WimseAuth(credentials))
    app = WimseMiddleware(app, check)

The binding is `credential`, of the WIT's key: the result was issued for it, and each request shows
that its sender holds it. No TLS session is bound, since none reaches from end to end.
"""

from troth.wimse.asgi import WimseMiddleware, ext_authz_app
from troth.wimse.check import RequestCheck, ResultRequirement, WimseCaller
from troth.wimse.client import WimseAuth, WimseCredentials
from troth.wimse.envoy import ext_authz_filter

__all__ = [
    "RequestCheck",
    "ResultRequirement",
    "WimseAuth",
    "WimseCaller",
    "WimseCredentials",
    "WimseMiddleware",
    "ext_authz_app",
    "ext_authz_filter",
]
