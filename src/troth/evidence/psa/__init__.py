# SPDX-License-Identifier: Apache-2.0
"""PSA attestation tokens (RFC 9783)."""
