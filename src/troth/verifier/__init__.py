# SPDX-License-Identifier: Apache-2.0
"""Appraisal: Evidence against Reference Values and an Appraisal Policy."""
