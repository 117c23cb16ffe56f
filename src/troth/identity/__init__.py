# SPDX-License-Identifier: Apache-2.0
"""SPIFFE nouns: SpiffeId, TrustDomain, X509Svid, TrustBundle."""
