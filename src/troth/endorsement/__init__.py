# SPDX-License-Identifier: Apache-2.0
"""What a Verifier is told: Endorsements, Reference Values, trust anchors."""
