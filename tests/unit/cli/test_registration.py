# SPDX-License-Identifier: Apache-2.0
"""`troth entry`, `troth node`, `troth bundle` and `troth apply` against a running server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.cli import Ran, run_cli
from support.server_world import DOMAIN, World, new_key, world
from troth.adapters.bundle_endpoint import HttpsBundleFetcher
from troth.cli.operators import ADMIN_SOCKET_VARIABLE
from troth.cli.yaml_documents import MAX_YAML_BYTES, read_documents
from troth.control_plane.server.trust_config import FederationSection
from troth.errors import ConfigurationError
from troth.identity.spiffe_id import TrustDomain
from troth.identity.trust_bundle import TrustBundle

EDGE = f"spiffe://{DOMAIN}/edge"
WEB = f"spiffe://{DOMAIN}/web"
OTHER = "other.example"
WORKLOAD = ("--spiffe-id", WEB, "--parent-id", EDGE)
FILE = f"""\
kind: Entry
id: web
spiffe_id: {WEB}
parent_id: {EDGE}
selectors: [unix:user:www-data, unix:gid:33]
x509_svid_ttl: 3600
---
kind: Entry
spiffe_id: spiffe://{DOMAIN}/db
parent_id: {EDGE}
selectors: [unix:uid:70]
"""


class Setting:
    """A server and the command line."""

    def __init__(self, here: World, capsys: pytest.CaptureFixture[str]) -> None:
        self.here, self._capsys = here, capsys

    async def run(self, *arguments: object) -> Ran:
        socket = self.here.running.admin_socket
        return await asyncio.to_thread(run_cli, self._capsys, *arguments, "--admin-socket", socket)

    async def made(self, *arguments: object) -> Any:
        ran = await self.run(*arguments)
        assert (ran.status, ran.err) == (0, ""), ran
        return json.loads(ran.out)

    def file(self, text: str, name: str = "entries.yaml") -> Path:
        path = self.here.directory / name
        path.write_text(text)
        return path

    async def applied(self, text: str, *options: str) -> dict[str, str]:
        """Apply a file, and return what was done with each entry."""
        ran = await self.run("apply", "-f", self.file(text), *options)
        assert ran.status in (0, 1), ran
        return {step["name"]: step["action"] for step in json.loads(ran.out)}


@pytest.fixture(autouse=True)
def no_usual_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADMIN_SOCKET_VARIABLE, raising=False)


@pytest.fixture
async def unserved(capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Setting]:
    async with world() as here:
        yield Setting(here, capsys)


@pytest.fixture
async def setting(unserved: Setting) -> AsyncIterator[Setting]:
    async with unserved.here.serve(fetcher=HttpsBundleFetcher()):
        yield unserved


# ---- troth entry


async def test_an_entry_is_created_shown_found_and_deleted(setting: Setting) -> None:
    made = await setting.made(
        *("entry", "create", *WORKLOAD, "--id", "web", "--selector", "unix:uid:33"),
        *("--selector", "troth:tier:measured", "--x509-svid-ttl", 600, "--jwt-svid-ttl", 60),
        *("--dns", "web.example.org", "--hint", "main"),
    )
    assert made["id"] == "web"
    assert sorted(made["selectors"]) == ["troth:tier:measured", "unix:uid:33"]
    assert (made["x509_svid_ttl"], made["jwt_svid_ttl"]) == (600, 60)
    assert await setting.made("entry", "show", "web") == made
    for found in (
        (),
        ("--spiffe-id", WEB),
        ("--parent-id", EDGE),
        ("--selector", "unix:uid:33"),
        ("--selector", "unix:uid:33", "--selector", "troth:tier:measured"),
    ):
        assert await setting.made("entry", "list", *found) == [made]
    for missed in (
        ("--spiffe-id", EDGE),
        ("--parent-id", WEB),
        ("--selector", "unix:uid:33", "--selector", "unix:uid:34"),
    ):
        assert await setting.made("entry", "list", *missed) == []
    deleted = await setting.made("entry", "delete", "web")
    assert deleted == [{"id": "web", "quarantined": []}]
    assert await setting.made("entry", "list") == []


async def test_options_may_be_spelled_as_in_spire(setting: Setting) -> None:
    made = await setting.made(
        *("entry", "create", "--spiffeID", WEB, "--parentID", EDGE, "--entryID", "web"),
        *("--selector", "unix:uid:33", "--x509SVIDTTL", 600, "--jwtSVIDTTL", 60),
    )
    assert (made["id"], made["x509_svid_ttl"], made["jwt_svid_ttl"]) == ("web", 600, 60)


async def test_an_entry_without_a_parent_is_for_nodes(setting: Setting) -> None:
    selector = "instance:01" + "ab" * 32
    made = await setting.made(
        "entry", "create", "--spiffe-id", EDGE, "--selector", selector, "--min-tier", "registered"
    )
    assert (made["parent_id"], made["min_tier"]) == ("", "registered")
    assert made["id"]


@pytest.mark.parametrize(
    ("arguments", "field", "why"),
    [
        (("--selector", "uid"), "selectors", "type:value"),
        (("--selector", "unix:uid:root"), "selectors", "unix:uid"),
        (("--selector", "unix:uid:33", "--min-tier", "measured"), "min_tier", "nodes"),
        (("--selector", "unix:uid:33", "--dns", "a b"), "dns_names", "a b"),
        (("--selector", "unix:uid:33", "--federates-with", DOMAIN), "federates_with", DOMAIN),
        (("--selector", "unix:uid:33", "--federates-with", OTHER), "federates_with", OTHER),
        (("--selector", "unix:uid:33", "--id", "Web"), "id", "match"),
    ],
)
async def test_a_wrong_entry_is_refused_with_field_and_reason(
    setting: Setting, arguments: tuple[str, ...], field: str, why: str
) -> None:
    ran = await setting.run("entry", "create", *WORKLOAD, *arguments)
    assert ran.status == 2, ran
    assert field in ran.err
    assert why in ran.err
    assert await setting.made("entry", "list") == []


@pytest.mark.parametrize(
    "spiffe_id", ["web", f"spiffe://{OTHER}/web", f"spiffe://{DOMAIN}", f"{WEB}/../x"]
)
async def test_a_wrong_spiffe_id_is_refused(setting: Setting, spiffe_id: str) -> None:
    ran = await setting.run(
        *("entry", "create", "--spiffe-id", spiffe_id, "--parent-id", EDGE),
        *("--selector", "unix:uid:1"),
    )
    assert ran.status == 2
    assert "spiffe" in ran.err.lower()


async def test_an_entry_is_neither_made_twice_nor_shown_nor_deleted_where_there_is_none(
    setting: Setting,
) -> None:
    arguments = ("entry", "create", *WORKLOAD, "--selector", "unix:uid:33", "--id", "web")
    await setting.made(*arguments)
    for wrong in (arguments, ("entry", "show", "db"), ("entry", "delete", "db")):
        ran = await setting.run(*wrong)
        assert ran.status == 2, wrong
        assert ran.err


async def test_people_get_columns_and_lines(setting: Setting) -> None:
    arguments = ("--selector", "unix:uid:33", "--selector", "unix:gid:33", "--id", "web")
    made = await setting.run("entry", "create", *WORKLOAD, *arguments, "--format", "text")
    assert made.out.splitlines()[:2] == ["id:        web", f"SPIFFE ID: {WEB}"]
    listed = await setting.run("entry", "list", "--format", "text")
    heading, line = listed.out.splitlines()
    assert heading.split()[:2] == ["id", "SPIFFE"]
    assert line.startswith(f"web  {WEB}  {EDGE}  unix:")
    await setting.made("entry", "delete", "web")
    assert (await setting.run("entry", "list", "--format", "text")).out == "no entries\n"


def test_without_a_server_or_a_socket_it_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = run_cli(capsys, "entry", "list", "--admin-socket", tmp_path / "none.sock")
    assert ran.status == 2
    unnamed = run_cli(capsys, "entry", "list")
    assert unnamed.status == 3
    assert "--admin-socket" in unnamed.err


# ---- troth node


async def test_nodes_are_listed_shown_and_expelled(unserved: Setting) -> None:
    edge, core = unserved.here.platform("edge"), unserved.here.platform("core")
    async with unserved.here.serve():
        client = unserved.here.client()
        joined = await client.join(edge, new_key())
        await client.close()
        second = unserved.here.client()
        await second.join(core, new_key())
        await second.close()
        nodes = await unserved.made("node", "list")
        assert {node["spiffe_id"] for node in nodes} == {EDGE, f"spiffe://{DOMAIN}/core"}
        assert await unserved.made("node", "list", "--state", "expelled") == []
        shown = await unserved.made("node", "show", joined.node_id)
        assert (shown["node_id"], shown["state"]) == (joined.node_id, "admitted")
        text = await unserved.run("node", "show", joined.node_id, "--format", "text")
        assert f"SPIFFE ID:        {EDGE}\n" in text.out
        expelled = await unserved.made("node", "expel", joined.node_id)
        assert expelled["state"] == "expelled"
        assert expelled["delivery"]["done"]
        [node] = await unserved.made("node", "list", "--state", "expelled")
        assert node["node_id"] == joined.node_id
        other = next(each["node_id"] for each in nodes if each["node_id"] != joined.node_id)
        told = await unserved.run("node", "retire", other, "--format", "text")
        assert f"{other} is retired\ndone: " in told.out
        again = await unserved.run("node", "expel", joined.node_id)
        assert again.status == 2


async def test_a_node_is_made_to_attest_anew(unserved: Setting) -> None:
    edge = unserved.here.platform("edge")
    async with unserved.here.serve():
        client = unserved.here.client()
        joined = await client.join(edge, new_key())
        await client.close()
        moved = await unserved.made("node", "reattest", joined.node_id)
        assert moved["state"] == "attesting"


@pytest.mark.parametrize("verb", ["show", "expel", "reattest", "retire"])
async def test_an_unknown_node_is_named(setting: Setting, verb: str) -> None:
    ran = await setting.run("node", verb, "nobody")
    assert ran.status == 2
    assert "no nodes are called 'nobody'" in ran.err


# ---- troth bundle


async def test_our_bundle_is_shown_as_others_take_it(setting: Setting) -> None:
    own = setting.here.running.context.bundles.own
    spiffe = await setting.run("bundle", "show")
    decoded = TrustBundle.decode(spiffe.out.encode(), trust_domain=TrustDomain(DOMAIN))
    assert decoded == own
    pem = await setting.run("bundle", "show", DOMAIN, "--format", "pem")
    assert pem.out.rstrip("\n") == own.encode_pem().decode().rstrip("\n")
    [line] = await setting.made("bundle", "list")
    assert (line["trust_domain"], line["own"], line["x509_authorities"]) == (DOMAIN, True, 1)
    text = await setting.run("bundle", "show", "--format", "text")
    assert text.out.startswith("trust domain:")


async def test_a_bundle_is_set_from_a_file_federated_with_and_deleted(setting: Setting) -> None:
    async with world() as other:
        other.options |= {
            "trust_domain": OTHER,
            "federation": FederationSection(listen="127.0.0.1:0"),
        }
        async with other.serve() as running:
            pem = setting.file(running.trust_bundle.read_text(), "other.pem")
            made = await setting.made(
                *("bundle", "set", OTHER, pem, "--url", running.bundle_url),
                *("--profile", "https_spiffe", "--endpoint-spiffe-id", running.spiffe_id),
            )
            assert made["profile"] == "https_spiffe"
            fetched = await setting.made("bundle", "refresh", OTHER)
            assert fetched["problem"] == ""
            shown = await setting.run("bundle", "show", OTHER)
            bundle = TrustBundle.decode(shown.out.encode(), trust_domain=TrustDomain(OTHER))
            assert bundle == running.context.bundles.own
    arguments = ("--selector", "unix:uid:1", "--id", "web", "--federates-with", OTHER)
    await setting.made("entry", "create", *WORKLOAD, *arguments)
    used = await setting.run("bundle", "delete", OTHER)
    assert used.status == 2
    assert "web" in used.err
    await setting.made("entry", "delete", "web")
    assert (await setting.run("bundle", "delete", OTHER)).status == 0
    assert (await setting.run("bundle", "show", OTHER)).status == 2


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((OTHER,), "bundle"),
        ((DOMAIN, "--url", "https://x.example", "--profile", "https_web"), "own"),
        (("no domain",), "trust domain"),
        ((OTHER, "--url", "http://other.example", "--profile", "https_web"), "https"),
        (
            (OTHER, "--url", "https://other.example", "--profile", "https_spiffe"),
            "endpoint_spiffe_id",
        ),
        ((OTHER, "--url", "https://other.example"), "profile"),
    ],
)
async def test_a_wrong_federation_is_refused(
    setting: Setting, arguments: tuple[str, ...], why: str
) -> None:
    ran = await setting.run("bundle", "set", *arguments)
    assert ran.status == 2, ran
    assert why in ran.err
    assert len(await setting.made("bundle", "list")) == 1


async def test_a_file_that_is_no_bundle_is_refused(setting: Setting) -> None:
    nonsense = await setting.run("bundle", "set", OTHER, setting.file("nonsense", "other.pem"))
    assert nonsense.status == 2
    path = setting.here.directory / "binary.pem"
    path.write_bytes(b"\xff\xfe")
    assert (await setting.run("bundle", "set", OTHER, path)).status == 3
    missing = await setting.run("bundle", "set", OTHER, path.with_name("missing"))
    assert missing.status == 3


async def test_authorities_are_rolled_over_step_by_step(setting: Setting) -> None:
    def stages(found: Any) -> list[tuple[str, str]]:
        return sorted((each["kind"], each["stage"]) for each in found)

    active = [("jwt", "active"), ("x509", "active")]
    assert stages(await setting.made("bundle", "authorities")) == active
    prepared = await setting.made("bundle", "rotate", "x509")
    assert stages(prepared) == [*active, ("x509", "prepared")]
    rolled = await setting.made("bundle", "rotate", "x509", "--now")
    assert stages(rolled) == [*active, ("x509", "old")]
    again = await setting.run("bundle", "rotate", "x509", "--now")
    assert again.status == 2


# ---- troth apply


async def test_files_are_applied_once_and_then_nothing_is_left_to_do(setting: Setting) -> None:
    db = f"spiffe://{DOMAIN}/db"
    assert await setting.applied(FILE) == {"web": "create", db: "create"}
    entries = await setting.made("entry", "list")
    assert {entry["spiffe_id"]: entry["x509_svid_ttl"] for entry in entries} == {WEB: 3600, db: 0}
    named = next(entry["id"] for entry in entries if entry["id"] != "web")
    # Selectors have no order, and the entry without an id is found by what it says.
    turned = FILE.replace("[unix:user:www-data, unix:gid:33]", "[unix:gid:33, unix:user:www-data]")
    assert await setting.applied(turned) == {"web": "keep", named: "keep"}
    assert await setting.made("entry", "list") == entries


async def test_a_change_is_shown_before_it_is_made(setting: Setting) -> None:
    await setting.applied(FILE)
    before = await setting.made("entry", "list")
    changed = setting.file(FILE.replace("3600", "60").replace(", unix:gid:33", ""))
    dry = await setting.run("apply", "-f", changed, "--dry-run", "--format", "text")
    assert dry.status == 1
    assert dry.out.splitlines()[:5] == [
        "~ Entry web",
        "    - selectors: unix:user:www-data, unix:gid:33",
        "    + selectors: unix:user:www-data",
        "    - x509_svid_ttl: 3600",
        "    + x509_svid_ttl: 60",
    ]
    assert dry.out.splitlines()[-1] == "1 of 2 would change"
    assert await setting.made("entry", "list") == before
    assert (await setting.run("apply", "-f", changed)).status == 0
    shown = await setting.made("entry", "show", "web")
    assert (shown["x509_svid_ttl"], shown["selectors"]) == (60, ["unix:user:www-data"])
    unchanged = await setting.run("apply", "-f", changed, "--dry-run")
    assert unchanged.status == 0


async def test_a_dry_run_on_an_empty_server_creates_nothing(setting: Setting) -> None:
    assert "create" in (await setting.applied(FILE, "--dry-run")).values()
    assert await setting.made("entry", "list") == []


async def test_an_entry_for_nodes_is_applied_and_kept(setting: Setting) -> None:
    text = f"kind: Entry\nid: edge\nspiffe_id: {EDGE}\nselectors: [instance:01{'ab' * 32}]\n"
    assert await setting.applied(text) == {"edge": "create"}
    assert await setting.applied(text) == {"edge": "keep"}
    amended = text + "hint: the one by the door\n"
    assert await setting.applied(amended) == {"edge": "change"}
    assert (await setting.made("entry", "show", "edge"))["hint"] == "the one by the door"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (FILE.replace("kind: Entry\nspiffe", "kind: Pod\nspiffe"), "kind"),
        (FILE.replace("kind: Entry\nspiffe", "spiffe"), "kind"),
        (FILE.replace("unix:uid:70", "unix:uid:none"), "unix:uid"),
        (FILE + "x509_svid_ttl: soon\n", "x509_svid_ttl"),
        (FILE + "color: red\n", "color"),
        (FILE + "downstream: true\n", "downstream"),
        (FILE + "id: a\nid: b\n", "twice"),
        (FILE + "hint: &a x\n", "anchors"),
        (FILE + "hint: [\n", "YAML"),
        (FILE + "---\n- a\n", "a map"),
    ],
)
async def test_a_wrong_file_changes_nothing(setting: Setting, text: str, why: str) -> None:
    ran = await setting.run(
        "apply", "-f", setting.file(FILE, "right.yaml"), "-f", setting.file(text)
    )
    assert ran.status == 3, ran
    assert "entries.yaml" in ran.err
    assert why in ran.err
    assert await setting.made("entry", "list") == []


async def test_what_the_server_refuses_is_named_with_what_is_done(setting: Setting) -> None:
    # Only the server knows whom it federates with.
    text = FILE + f"federates_with: [{OTHER}]\n"
    ran = await setting.run("apply", "-f", setting.file(text))
    assert ran.status == 2
    assert f"Entry spiffe://{DOMAIN}/db was refused; 1 before it are done" in ran.err
    assert [entry["id"] for entry in await setting.made("entry", "list")] == ["web"]


# ---- the YAML that is taken


def test_scalars_are_the_text_that_stands_there() -> None:
    data = b"a: no\nb: 1.0\nc: 2020-01-01\nd: ~\n---\n---\ne: !!str x\n"
    assert read_documents(data, source="f") == [
        {"a": "no", "b": "1.0", "c": "2020-01-01", "d": "~"},
        {"e": "x"},
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"a: &x [1]\nb: *x\n",
        b"a: *x\n",
        b"a: 1\na: 2\n",
        b"? [a]\n: b\n",
        b"\xff",
        b"text",
        b"[" * 100_000,
        b"a: !!python/object:os.system x\n: :\n",
        b" " * (MAX_YAML_BYTES + 1),
    ],
    ids=range(9),
)
def test_other_yaml_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="f"):
        read_documents(data, source="f")
