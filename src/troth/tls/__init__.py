# SPDX-License-Identifier: Apache-2.0
"""Attested TLS: the exchange as a sans-IO core, and asyncio streams."""
