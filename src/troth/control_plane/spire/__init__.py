# SPDX-License-Identifier: Apache-2.0
"""Plugins that SPIRE starts: attestation of SPIRE's nodes by Evidence, and results in its SVIDs."""
