# SPDX-License-Identifier: Apache-2.0
"""A report of the Linux kernel's TSM interface, as Veraison's tools carry it in CBOR or JSON.

The kernel's configfs-tsm gives the same three files for every confidential VM: which provider
answers, the report, and what comes beside it. What stands in them is the provider's.

Source: Linux Documentation/ABI/testing/configfs-tsm-report; Veraison ratsd, docs/tsm-report.cddl.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Final

from troth.errors import DecodeError, UnsupportedError
from troth.formats import cbor
from troth.formats.limits import Limits
from troth.formats.media_type import parse_media_type
from troth.formats.quoting import shown
from troth.formats.strict_json import decode_json_object

__all__ = ["LIMITS", "TSM_REPORT_CBOR", "TSM_REPORT_JSON", "TsmReport", "decode_tsm_report"]

TSM_REPORT_CBOR: Final = "application/vnd.veraison.tsm-report+cbor"
TSM_REPORT_JSON: Final = "application/vnd.veraison.tsm-report+json"

LIMITS: Final = Limits(max_bytes=65_536, max_items=32, max_depth=3)
"""The kernel gives at most 32 KiB for the report, and 16 KiB for certificates beside it."""

_FORMAT: Final = "TSM report"
_MEMBERS: Final = ("auxblob", "outblob", "provider", "manifestblob", "service_provider")
_CBOR_START: Final = re.compile(
    rb"[\xa2-\xa5](?:" + b"|".join(b"[\x60-\x77]" + name.encode() for name in _MEMBERS) + rb")"
)
_JSON_START: Final = re.compile(
    rb'\s*\{\s*"(?:' + b"|".join(name.encode() for name in _MEMBERS) + rb')"\s*:'
)
_BASE64: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}|[A-Za-z0-9+/]*={0,2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TsmReport:
    """One report with what came beside it.

    Attributes:
        provider: the kernel driver that answered, such as "sev_guest" or "tdx_guest".
        outblob: the report.
        auxblob: certificates and the like that the host hands along, b"" where there are none.
    """

    provider: str
    outblob: bytes = field(repr=False)
    auxblob: bytes = field(default=b"", repr=False)

    @staticmethod
    def recognises(data: bytes) -> bool:
        """Say whether `data` starts like one, in CBOR or JSON."""
        return bool(_CBOR_START.match(data) or _JSON_START.match(data))

    def to_cbor(self) -> bytes:
        """Return the report under TSM_REPORT_CBOR."""
        members: dict[str, object] = {"provider": self.provider, "outblob": self.outblob}
        if self.auxblob:
            members["auxblob"] = self.auxblob
        return cbor.encode(members)


def decode_tsm_report(data: bytes, *, media_type: str = "") -> TsmReport:
    """Decode one report.

    Args:
        data: CBOR or JSON.
        media_type: that it came under; decides between the two, else the first octet does.

    Raises:
        DecodeError: not one.
        UnsupportedError: it holds a report of a service provider inside the VM (an SVSM).
        LimitExceededError: a limit was crossed.
    """
    as_json = data.lstrip()[:1] == b"{"
    if media_type:
        as_json = parse_media_type(media_type).name.endswith("+json")
    members: dict[str, object] = {}
    if as_json:
        members.update(decode_json_object(data, format=_FORMAT, limits=LIMITS))
    else:
        value = cbor.decode(data, format=_FORMAT, limits=LIMITS)
        if not isinstance(value, dict):
            raise DecodeError("is not a map", format=_FORMAT)
        members.update(
            {shown(key) if not isinstance(key, str) else key: value[key] for key in value}
        )
    if members.get("service_provider") or members.get("manifestblob"):
        raise UnsupportedError(
            "it is about a service provider inside the VM (SVSM), whose manifest Troth does not "
            "read",
            format=_FORMAT,
            remedy="Ask for a report of the VM itself.",
        )
    provider = members.get("provider")
    if not isinstance(provider, str) or not provider.strip():
        raise DecodeError("provider is not a text", format=_FORMAT)
    outblob = _octets(members, "outblob", as_json=as_json)
    if not outblob:
        raise DecodeError("outblob is missing", format=_FORMAT)
    return TsmReport(
        # The kernel ends the name with a line feed, and so do published reports.
        provider=provider.strip(),
        outblob=outblob,
        auxblob=_octets(members, "auxblob", as_json=as_json),
    )


def _octets(members: dict[str, object], name: str, *, as_json: bool) -> bytes:
    value = members.get(name)
    if value is None:
        return b""
    if as_json and isinstance(value, str) and _BASE64.fullmatch(value):
        unpadded = value.rstrip("=").replace("-", "+").replace("_", "/")
        try:
            return base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True)
        except ValueError as exc:
            raise DecodeError(f"{name} is not base64: {exc}", format=_FORMAT) from exc
    if not as_json and isinstance(value, bytes):
        return value
    expected = "base64url" if as_json else "octets"
    raise DecodeError(f"{name} is not {expected}", format=_FORMAT)
