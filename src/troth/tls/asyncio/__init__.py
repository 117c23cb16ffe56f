# SPDX-License-Identifier: Apache-2.0
"""Attested TLS on asyncio streams."""
