# SPDX-License-Identifier: Apache-2.0
"""Relying Party decisions: node states, peer policy, admission, connection lifetime."""
