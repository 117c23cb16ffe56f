# SPDX-License-Identifier: Apache-2.0
"""Puts attestation into an Envoy configuration that somebody else wrote."""
