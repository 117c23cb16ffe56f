# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of every decoder of outside bytes.

The invariant: any bytes either decode or raise DecodeError, within the documented budget; never
any other exception. `make test` runs a fixed seed and count, `make fuzz FUZZ_SECONDS=600` goes on
from a fresh seed. A decoder joins by one line in targets.py.
"""
