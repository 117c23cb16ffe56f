# SPDX-License-Identifier: Apache-2.0
"""Decisions about callers for an Envoy that cannot load the gate: network ext_authz."""
