# SPDX-License-Identifier: Apache-2.0
"""Verifiers elsewhere, in place of our own: a Veraison service, or Trustee's Attestation Service."""
