# SPDX-License-Identifier: Apache-2.0
"""The agent's side of the gate: its frames, and where the compiled module is."""

from pathlib import Path

__all__ = ["MODULE_PATH"]

MODULE_PATH = Path(__file__).with_name("libtroth_gate.so")
"""The Envoy module inside the installed package. Built by the wheel, or by `make -C native/gate`."""
