# SPDX-License-Identifier: Apache-2.0
"""Troth: attested TLS for the service mesh."""

__version__ = "0.1.0"
__all__ = ["__version__"]
