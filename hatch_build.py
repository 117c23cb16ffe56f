# SPDX-License-Identifier: Apache-2.0
"""Compiles the gate into the wheel: the one part of Troth that is not Python.

A C compiler and make are all it takes. An editable installation compiles it in place where there
is a compiler and goes without it where there is none. `TROTH_WITHOUT_GATE=1` makes a pure wheel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "troth/control_plane/gate/libtroth_gate.so"


class GateBuildHook(BuildHookInterface[BuilderConfig]):
    """Adds the compiled module, and the platform to the wheel's name."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before hatchling collects files; `version` is "standard" or "editable"."""
        if sys.platform != "linux" or os.environ.get("TROTH_WITHOUT_GATE") == "1":
            return
        missing = [tool for tool in ("cc", "make") if shutil.which(tool) is None]
        if missing and version == "editable":
            self.app.display_warning(f"the Envoy gate is not built: no {' and no '.join(missing)}")
            return
        if missing:
            message = (
                f"building the Envoy gate needs {' and '.join(missing)}; install a C compiler, "
                "or set TROTH_WITHOUT_GATE=1 for a wheel without the gate"
            )
            raise RuntimeError(message)
        target = Path(self.root, "src", MODULE)
        source = Path(self.root, "native", "gate")
        subprocess.run(["make", "--silent", "-C", source, f"OUT={target}"], check=True)
        if version != "editable":
            build_data["force_include"][str(target)] = MODULE
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
