# SPDX-License-Identifier: Apache-2.0
"""`troth device`: the inventory of machines that may be here."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import click

from troth.cli.inputs import read_input
from troth.cli.listing import columns, details, format_option, show
from troth.cli.operators import Operator, server_option
from troth.errors import ConfigurationError, DecodeError, TrothError
from troth.mesh.device import IdentityKind, key_identity
from troth.mesh.device_message import DeviceMessage, device_from

__all__ = ["DEVICE_FIELDS", "device"]

DEVICE_FIELDS: Final = {
    "id": "id",
    "state": "state",
    "identities": "identities",
    "owner": "owner",
    "class_id": "kind of machine",
    "bound": "known by",
    "presented_at": "presented itself",
    "added_at": "entered",
    "added_by": "entered by",
    "hint": "hint",
}
_COLUMNS: Final = {
    name: DEVICE_FIELDS[name] for name in ("id", "state", "owner", "presented_at", "identities")
}
_FILE_COLUMNS: Final = ("id", "identities", "owner", "class_id", "hint")
_MAX_IMPORTED: Final = 100_000


@click.group()
def device() -> None:
    """Keep the inventory of machines: which hardware may be here.

    A device of the inventory joins once it has presented itself with a proof and its owner has
    approved it; either may come first. docs/howto/onboard-devices.md shows each kind of proof.
    """


@device.command("add")
@click.argument("device_id", metavar="ID")
@click.option("--identity", "identities", multiple=True, help="Such as ek:SHA256. May be repeated.")
@click.option("--ek", "endorsement_keys", multiple=True, metavar="FILE", help="The TPM's endorsement key or its certificate.")  # fmt: skip
@click.option("--certificate", "certificates", multiple=True, metavar="FILE", help="IDevID or claim certificate.")  # fmt: skip
@click.option("--owner", default="", help="Whose it is.")
@click.option("--class-id", default="", help="Environment class of its Reference Values, in hex.")
@click.option("--hint", default="", help="Your own words, such as a serial number.")
@click.option("--approve", is_flag=True, help="Approve it too.")
@click.option("--token", is_flag=True, help="Make a join token for it too.")
@format_option()
@server_option()
def add(
    *,
    device_id: str,
    identities: Sequence[str],
    endorsement_keys: Sequence[str],
    certificates: Sequence[str],
    approve: bool,
    token: bool,
    output: str | None,
    admin_socket: str | None,
    **fields: Any,  # noqa: ANN401 - the options above
) -> None:
    r"""Enter a device; it is not approved by that.

    \b
    By its TPM:          troth device add edge-7 --ek ek.pem --approve
    By its certificate:  troth device add edge-7 --certificate idevid.pem
    By a token:          troth device add edge-7 --token
    """
    named = [
        *identities,
        *(_identity(IdentityKind.EK, name) for name in endorsement_keys),
        *(_identity(IdentityKind.CERTIFICATE, name) for name in certificates),
    ]
    operator = Operator(admin_socket)
    made = operator.post("/v1/devices", {"id": device_id, "identities": named, **fields})
    if approve:
        made = operator.post(_path(device_id, "approve"))
    if token:
        made = {**made, **operator.post(_path(device_id, "token"))}
    names = {**DEVICE_FIELDS, "token": "join token", "expires": "token ends"}
    show(made, lambda: details(made, names), output)


@device.command("list")
@click.option("--state", type=click.Choice(["pending", "approved", "revoked"]))
@click.option("--waiting", is_flag=True, help="Only those that wait for their owner's approval.")
@format_option()
@server_option()
def list_devices(
    *, state: str | None, waiting: bool, output: str | None, admin_socket: str | None
) -> None:
    """List devices."""
    found = [
        each
        for each in Operator(admin_socket).get("/v1/devices")
        if state in (None, each["state"])
        and not (waiting and (each["state"] != "pending" or each["presented_at"] is None))
    ]
    show(found, lambda: columns(found, _COLUMNS, none="no devices"), output)


@device.command("show")
@click.argument("device_id", metavar="ID")
@format_option()
@server_option()
def show_device(*, device_id: str, output: str | None, admin_socket: str | None) -> None:
    """Show one device."""
    found = Operator(admin_socket).get(_path(device_id))
    show(found, lambda: details(found, DEVICE_FIELDS), output)


@device.command("approve")
@click.argument("device_ids", metavar="ID…", nargs=-1, required=True)
@format_option()
@server_option()
def approve(*, device_ids: Sequence[str], output: str | None, admin_socket: str | None) -> None:
    """Approve devices: the owner's half of the double opt-in."""
    operator = Operator(admin_socket)
    done = [operator.post(_path(each, "approve")) for each in device_ids]
    show(done, lambda: columns(done, _COLUMNS, none=""), output)


@device.command("revoke")
@click.argument("device_ids", metavar="ID…", nargs=-1, required=True)
@format_option()
@server_option()
def revoke(*, device_ids: Sequence[str], output: str | None, admin_socket: str | None) -> None:
    """Revoke devices for good; their nodes are quarantined at once."""
    operator = Operator(admin_socket)
    done = []
    for each in device_ids:
        outcome = operator.post(_path(each, "revoke"))
        done.append({"id": outcome["device"]["id"], "quarantined": outcome["quarantined"]})
    names = {"id": "revoked", "quarantined": "nodes quarantined"}
    show(done, lambda: columns(done, names, none=""), output)


@device.command("token")
@click.argument("device_id", metavar="ID")
@click.option("--seconds", type=click.IntRange(1, 30 * 86_400), help="Its life.")
@format_option()
@server_option()
def token(
    *, device_id: str, seconds: int | None, output: str | None, admin_socket: str | None
) -> None:
    """Make a join token that shows once which device a machine is.

    It is printed this once; the server keeps a digest. An earlier one of the device ends.
    """
    made = Operator(admin_socket).post(_path(device_id, "token"), {"seconds": seconds or 0})
    show(made, lambda: str(made["token"]), output)


@device.command("import")
@click.argument("file", metavar="FILE")
@click.option("--approve", is_flag=True, help="Approve them too.")
@format_option()
@server_option()
def import_devices(
    *, file: str, approve: bool, output: str | None, admin_socket: str | None
) -> None:
    """Enter the devices of a CSV file, such as a maker's delivery list; "-" reads standard input.

    Its first line names columns: id, identities (several with spaces between), owner, class_id,
    hint. The whole file is checked before the first device is entered. Devices whose id is there
    already with the same identities are left as they are.
    """
    wanted = _read_file(file)
    operator = Operator(admin_socket)
    present = {each["id"]: each for each in operator.get("/v1/devices")}
    done = []
    for message in wanted:
        known = present.get(message.id)
        if known is not None and set(known["identities"]) == set(message.identities):
            done.append({"id": message.id, "outcome": "kept"})
            continue
        body = {name: getattr(message, name) for name in _FILE_COLUMNS}
        operator.post("/v1/devices", body)
        if approve:
            operator.post(_path(message.id, "approve"))
        done.append({"id": message.id, "outcome": "approved" if approve else "entered"})
    names = {"id": "id", "outcome": "outcome"}
    show(done, lambda: columns(done, names, none="no devices"), output)


@device.command("voucher")
@click.argument("files", metavar="FILE…", nargs=-1, required=True)
@click.option("--maker", "makers", multiple=True, required=True, metavar="FILE", help="Public key of a maker that is believed. May be repeated.")  # fmt: skip
@click.option("--owner-key", "owners", multiple=True, required=True, metavar="FILE", help="Our own public key, which vouchers are extended to. May be repeated.")  # fmt: skip
@click.option("--approve", is_flag=True, help="Approve them too.")
@format_option()
@server_option()
def voucher(
    *,
    files: Sequence[str],
    makers: Sequence[str],
    owners: Sequence[str],
    approve: bool,
    output: str | None,
    admin_socket: str | None,
) -> None:
    """Enter the devices of FIDO ownership vouchers (FDO 1.1), in PEM or CBOR.

    Each voucher has to lead from a maker that is believed, by the signature of each owner, to our
    own key. All are verified before the first device is entered. A device then presents itself by
    the certificate that its voucher names; onboarding.claim_roots has to lead to it.
    """
    from troth.mesh.ownership_voucher import decode_voucher, verify_voucher  # noqa: PLC0415

    believed = [each for name in makers for each in _public_keys(name)]
    ours = [each for name in owners for each in _public_keys(name)]
    proved = [
        verify_voucher(decode_voucher(_voucher_bytes(name)), makers=believed, owners=ours)
        for name in files
    ]
    operator = Operator(admin_socket)
    done = []
    for each in proved:
        device_id = f"fdo-{each.guid.hex()}"
        identity = str(key_identity(IdentityKind.CERTIFICATE, each.device_key))
        message = {"id": device_id, "identities": [identity], "hint": each.device_info[:256]}
        made = operator.post("/v1/devices", message)
        done.append(operator.post(_path(device_id, "approve")) if approve else made)
    show(done, lambda: columns(done, _COLUMNS, none=""), output)


def _public_keys(name: str) -> list[bytes]:
    from troth.formats.keys import load_keys, spki  # noqa: PLC0415 - start-up time

    return [spki(each) for each in load_keys(read_input(name), source=name)]


def _voucher_bytes(name: str) -> bytes:
    data = read_input(name)
    if not data.startswith(b"-----BEGIN OWNERSHIP VOUCHER-----"):
        return data
    try:
        return base64.b64decode(b"".join(data.split(b"-----")[2].split()), validate=True)
    except (ValueError, IndexError) as exc:
        raise DecodeError("not base64 between PEM lines", format=name) from exc


def _path(device_id: str, verb: str = "") -> str:
    return f"/v1/devices/{quote(device_id, safe='')}" + (f"/{verb}" if verb else "")


def _identity(kind: IdentityKind, name: str) -> str:
    from troth.formats.keys import load_keys, spki  # noqa: PLC0415 - start-up time

    keys = load_keys(read_input(name), source=name)
    if len(keys) != 1:
        raise ConfigurationError(source=name, accepted="one public key or certificate")
    return str(key_identity(kind, spki(keys[0])))


def _read_file(name: str) -> list[DeviceMessage]:
    try:
        text = read_input(name).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DecodeError(str(exc), format=f"{name} (CSV)") from exc
    if len(rows) > _MAX_IMPORTED:
        raise ConfigurationError(source=name, accepted=f"at most {_MAX_IMPORTED} devices")
    return [_read_row(row, f"{name}, line {number}") for number, row in enumerate(rows, start=2)]


def _read_row(row: Mapping[str | None, Any], source: str) -> DeviceMessage:
    if unknown := [str(each) for each in row if each not in _FILE_COLUMNS]:
        raise ConfigurationError(
            source=source, key=", ".join(unknown), accepted=", ".join(_FILE_COLUMNS)
        )
    values = {key: value or "" for key, value in row.items() if key is not None}
    try:
        message = DeviceMessage(
            id=values.get("id", ""),
            identities=tuple(values.get("identities", "").split()),
            owner=values.get("owner", ""),
            class_id=values.get("class_id", ""),
            hint=values.get("hint", ""),
        )
        device_from(message)
    except TrothError as exc:
        raise ConfigurationError(source=source, accepted=str(exc)) from exc
    return message
