# SPDX-License-Identifier: Apache-2.0
"""Arm CCA attestation tokens (draft-ffm-rats-cca-token; Arm DEN0137 section A7.2)."""
