# SPDX-License-Identifier: Apache-2.0
"""Argument parsing, printing, and the composition root."""
