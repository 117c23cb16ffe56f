# SPDX-License-Identifier: Apache-2.0
"""Base64url as JOSE, CMW and EAR write it: without padding, without line ends, one spelling only.

Source: RFC 4648 sections 3.5 and 5; RFC 7515 section 2.
"""

from __future__ import annotations

import base64
import re

from troth.errors import DecodeError

__all__ = ["decode_base64url", "encode_base64url"]

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")


def decode_base64url(text: str, *, format: str) -> bytes:
    """Decode unpadded base64url.

    Raises:
        DecodeError: a character outside the alphabet (padding, white space and the other
            alphabet's + and / included), an impossible length, or non-zero bits at the end, which
            would give two spellings to the same octets.
    """
    if not _ALPHABET.fullmatch(text) or len(text) % 4 == 1:
        raise DecodeError("not unpadded base64url", format=format)
    octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_base64url(octets) != text:
        raise DecodeError("base64url with stray bits at the end", format=format)
    return octets


def encode_base64url(octets: bytes) -> str:
    """Encode without padding."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
