# SPDX-License-Identifier: Apache-2.0
"""What a `plugin_data` block of SPIRE's configuration may say to a plugin of ours: one file's name.

SPIRE hands the block on as text in HCL. Everything else stands in that file, in TOML, as for Troth's
other programs:

    plugin_data { config = "/etc/troth/nodeattestor.toml" }
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from troth.errors import ConfigurationError

__all__ = ["read_plugin_data"]

_MAX: Final = 4096
_LINE: Final = re.compile(r'"?config"?\s*[=:]\s*(?P<value>"(?:[^"\\\n]|\\.)*")', re.ASCII)
_COMMENT: Final = re.compile(r"^\s*(#|//).*$", re.MULTILINE)
_SOURCE: Final = "plugin_data"


def read_plugin_data(text: str) -> Path:
    """Return the file that `config` names; HCL or JSON, and no other key.

    Raises:
        ConfigurationError: anything else stands there, or the path is not absolute.
    """
    stripped = _COMMENT.sub("", text[: _MAX + 1]).strip()
    if stripped.startswith("{") and stripped.endswith("}"):
        stripped = stripped[1:-1].strip()
    found = _LINE.fullmatch(stripped)
    if found is None or len(text) > _MAX:
        raise ConfigurationError(
            source=_SOURCE, value=text[:80], accepted='config = "/absolute/path.toml", and no more'
        )
    try:
        value = str(json.loads(found["value"]))
    except ValueError as exc:
        raise ConfigurationError(
            source=_SOURCE, key="config", value=found["value"], accepted="a string"
        ) from exc
    if not value.startswith("/"):
        raise ConfigurationError(
            source=_SOURCE, key="config", value=value, accepted="an absolute path"
        )
    return Path(value)
