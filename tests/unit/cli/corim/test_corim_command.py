# SPDX-License-Identifier: Apache-2.0
"""`troth corim`: create, show, sign, verify, and what each refuses."""

from __future__ import annotations

import json
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Protocol

import pytest
from cryptography.hazmat.primitives import serialization

from support.cli import Ran, run_cli
from support.signing import p256_signer
from support.vectors import vectors
from troth.endorsement.build import AttestKey, Component, psa_corim
from troth.endorsement.endorsements import Endorsements, endorsements_of
from troth.evidence.simulator.options import CcaOptions, PsaOptions
from troth.evidence.simulator.platform import SimulatedPlatform
from troth.formats.corim import Corim
from troth.formats.keys import VerificationKey

DIGEST = sha256(b"x").hexdigest()
UEID = "01" + "22" * 32


class Run(Protocol):
    def __call__(self, *arguments: object) -> Ran: ...


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(run_cli, capsys, "corim")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A CoRIM in a file."""
    corim = psa_corim(
        corim_id="acme",
        implementation_id=bytes(32),
        components=[Component(digest=bytes(32), signer_id=bytes(32), name="BL")],
        keys=[
            AttestKey(
                instance_id=bytes.fromhex(UEID),
                key=VerificationKey(p256_signer("iak").public_key),
            )
        ],
    )
    path = tmp_path / "acme.cbor"
    path.write_bytes(corim.encode())
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key in a file, its public key beside it as .pub."""
    signer = p256_signer("corim signer")
    private = tmp_path / "signer.pem"
    private.write_bytes(
        signer._private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public = signer.public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (tmp_path / "signer.pub").write_bytes(public)
    return private


def read(path: Path) -> Endorsements:
    return endorsements_of(Corim.decode(path.read_bytes()), source=path.name)


class TestShow:
    def test_a_corim_is_shown_as_text(self, run: Run, good: Path) -> None:
        ran = run("show", good)
        assert ran.status == 0
        assert "id: acme" in ran.out
        assert "key: psa.software-component" in ran.out
        assert f"sha-256:{bytes(32).hex()}" in ran.out
        assert f"instance: UEID {UEID}" in ran.out
        assert "possible: yes" in ran.out

    def test_a_corim_is_shown_as_json(self, run: Run, good: Path) -> None:
        shown = json.loads(run("show", "--json", good).out)
        assert shown["id"] == "acme"
        assert shown["tags"][0]["reference"][0]["measurements"][0]["name"] == "BL"
        assert shown["provisioning"] == {
            "possible": True,
            "scheme": "psa",
            "reference-values": ["acme/acme:state#0"],
            "trust-anchors": ["acme/acme:keys#key0"],
        }

    def test_every_published_corim_can_be_shown(self, run: Run) -> None:
        paths = [*vectors("corim").glob("*.cbor"), *vectors("psa").glob("**/corim-*.cbor")]
        paths += vectors("cca").glob("**/corim-*.cbor")
        assert len(paths) > 20
        for path in paths:
            for options in ((), ("--json",)):
                assert run("show", *options, path).status == 0, path

    def test_an_unknown_profile_is_shown_with_the_reason_of_its_rejection(self, run: Run) -> None:
        shown = run("show", vectors("corim") / "unsigned-example-corim.cbor")
        assert shown.status == 0
        assert "possible: no" in shown.out
        assert "'http://example.com/example-profile' is not known" in shown.out

    def test_a_signed_corim_is_shown_unverified(self, run: Run) -> None:
        path = vectors("corim") / "signed-good-corim.cbor"
        shown = json.loads(run("show", "--json", "--scheme", "tpm2", path).out)
        assert shown["signature"]["signer"] == "ACME Ltd signing key"
        assert shown["signature"]["verified"] is False
        assert shown["signature"]["validity"]["not-after"] == "2025-12-31T00:00:00Z"

    def test_what_does_not_print_does_not_reach_the_terminal(
        self, run: Run, tmp_path: Path
    ) -> None:
        corim = Corim.decode(
            psa_corim(
                corim_id="c",
                implementation_id=bytes(32),
                components=[
                    Component(digest=bytes(32), signer_id=bytes(32), name="\x1b[31mBL\nid: x")
                ],
            ).encode()
        )
        path = tmp_path / "c.cbor"
        path.write_bytes(corim.encode())
        ran = run("show", path)
        assert "\x1b" not in ran.out
        assert r"name: \x1b[31mBL\nid: x" in ran.out

    @pytest.mark.parametrize("content", [b"", b"{}", b"\xd9\x01\xf5\xa0"])
    def test_what_is_no_corim_is_refused(self, run: Run, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "x"
        path.write_bytes(content)
        ran = run("show", path)
        assert ran.status == 2
        assert ran.err.startswith("troth: CoRIM")

    def test_a_file_that_is_not_there_is_named(self, run: Run, tmp_path: Path) -> None:
        ran = run("show", tmp_path / "none")
        assert ran.status == 3
        assert "none; expected a readable file" in ran.err

    def test_a_file_that_is_too_long_is_refused(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "long"
        path.write_bytes(bytes(2 * 2**20 + 1))
        ran = run("show", path)
        assert ran.status == 3
        assert "a file of at most 1048576 octets" in ran.err


class TestSignAndVerify:
    def test_what_is_signed_verifies(self, run: Run, good: Path, key: Path) -> None:
        signed = run("sign", good, "--key", key, "--signer", "ACME", "--not-after", "2100-01-01")
        assert signed.status == 0
        path = good.with_suffix(".cose")
        assert signed.out == f"{path}: acme, signed by 'ACME' with ES256\n"
        verified = run("verify", path, "--key", key.with_suffix(".pub"))
        assert verified.status == 0
        assert "acme, signed by 'ACME'" in verified.out
        assert "1 reference values and 1 trust anchors for psa" in verified.out

    def test_another_key_does_not_verify(
        self, run: Run, good: Path, key: Path, tmp_path: Path
    ) -> None:
        run("sign", good, "--key", key, "--signer", "ACME")
        other = tmp_path / "other.pub"
        other.write_bytes(
            p256_signer("other").public_key.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        ran = run("verify", good.with_suffix(".cose"), "--key", other)
        assert ran.status == 2
        assert "does not verify" in ran.err
        both = run("verify", good.with_suffix(".cose"), "--key", other, "--key", key)
        assert both.status == 0

    def test_a_signature_is_judged_at_the_given_time(self, run: Run, good: Path, key: Path) -> None:
        period = ("--not-before", "2030-01-01", "--not-after", "2030-12-31T12:00:00Z")
        run("sign", good, "--key", key, "--signer", "ACME", *period)
        path = good.with_suffix(".cose")
        for moment, status in (("2029-12-31", 2), ("2030-06-01", 0), ("2031-01-01", 2)):
            assert run("verify", path, "--key", key, "--at", moment).status == status

    def test_a_changed_file_does_not_verify(self, run: Run, good: Path, key: Path) -> None:
        run("sign", good, "--key", key, "--signer", "ACME")
        path = good.with_suffix(".cose")
        data = bytearray(path.read_bytes())
        data[-100] ^= 1
        path.write_bytes(data)
        assert run("verify", path, "--key", key).status == 2

    def test_an_unsigned_corim_is_not_verified_and_a_signed_one_not_signed(
        self, run: Run, good: Path, key: Path
    ) -> None:
        ran = run("verify", good, "--key", key)
        assert ran.status == 2
        assert "not signed" in ran.err
        run("sign", good, "--key", key, "--signer", "ACME")
        ran = run("sign", good.with_suffix(".cose"), "--key", key, "--signer", "X", "--force")
        assert ran.status == 2
        assert "signed already, by 'ACME'" in ran.err

    def test_what_could_not_be_provisioned_is_not_signed(self, run: Run, key: Path) -> None:
        path = vectors("psa") / "veraison-services/corim-psa-bad-ta-cert.cbor"
        ran = run("sign", path, "--key", key, "--signer", "ACME", "--out", key.parent / "out")
        assert ran.status == 2
        assert "tag 555 (PEM certificate)" in ran.err
        assert not (key.parent / "out").exists()

    def test_a_file_is_not_replaced_unless_that_is_said(
        self, run: Run, good: Path, key: Path
    ) -> None:
        arguments = ("sign", good, "--key", key, "--signer", "ACME")
        assert run(*arguments).status == 0
        ran = run(*arguments)
        assert ran.status == 3
        assert "--force" in ran.err
        assert run(*arguments, "--force").status == 0

    def test_a_published_test_key_is_named_as_such(self, run: Run) -> None:
        folder = vectors("corim")
        ran = run(
            *("verify", folder / "signed-good-corim.cbor", "--key", folder / "ec-p256.jwk"),
            *("--at", "2025-01-01", "--scheme", "tpm2"),
        )
        assert ran.status == 0
        assert "published test key" in ran.err

    def test_a_public_key_cannot_sign(self, run: Run, good: Path, key: Path) -> None:
        ran = run("sign", good, "--key", key.with_suffix(".pub"), "--signer", "ACME")
        assert ran.status == 2
        assert "not a private key" in ran.err

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            (("--not-after", "soon"), "expected a date"),
            (("--not-after", "2030-01-01T12:00"), "expected a date"),
            (("--not-before", "2030-01-01"), "expected an end"),
            (("--not-before", "2030-01-02", "--not-after", "2030-01-01"), "a time after"),
        ],
    )
    def test_a_period_that_is_none_is_refused(
        self, run: Run, good: Path, key: Path, options: tuple[str, ...], reason: str
    ) -> None:
        ran = run("sign", good, "--key", key, "--signer", "ACME", *options)
        assert ran.status == 3
        assert reason in ran.err


class TestCreateFromEvidence:
    @pytest.fixture
    def psa(self, tmp_path: Path) -> Path:
        return self.node(tmp_path, "psa")

    @staticmethod
    def node(folder: Path, scheme: str) -> Path:
        """Evidence of a simulated node in a file, its key beside it as .pub."""
        options = PsaOptions() if scheme == "psa" else CcaOptions()
        node = SimulatedPlatform.create(options, random=Random(1).randbytes)  # noqa: S311 - the same in each run
        path = folder / f"{scheme}.token"
        path.write_bytes(node.attest(bytes(64)))
        path.with_suffix(".pub").write_text(node.reference().public_key_pem)
        return path

    def test_a_psa_node_makes_one_corim(self, run: Run, psa: Path, tmp_path: Path) -> None:
        ran = run(
            *("create", "--evidence", psa, "--key", psa.with_suffix(".pub"), "--with-key"),
            *("--id", "node", "--out-dir", tmp_path, "--allow-simulator"),
        )
        assert ran.status == 0, ran.err
        assert "warning" in ran.err
        assert "platform simulator" in ran.err
        found = read(tmp_path / "node.cbor")
        assert found.reference_values
        assert len(found.trust_anchors) == 1

    def test_a_cca_node_makes_two_corims(self, run: Run, tmp_path: Path) -> None:
        cca = self.node(tmp_path, "cca")
        ran = run(
            *("create", "--evidence", cca, "--key", cca.with_suffix(".pub"), "--with-key"),
            *("--id", "node", "--out-dir", tmp_path, "--allow-simulator"),
        )
        assert ran.status == 0, ran.err
        platform, realm = read(tmp_path / "node-platform.cbor"), read(tmp_path / "node-realm.cbor")
        assert {value.key for value in platform.reference_values} == {
            "cca.software-component",
            "cca.platform-config",
        }
        assert len(platform.trust_anchors) == 1
        keys = [value.key for value in realm.reference_values]
        assert keys == ["cca.rim", "cca.rem0", "cca.rem1", "cca.rem2", "cca.rem3", "cca.rpv"]

    def test_parts_can_be_left_out(self, run: Run, tmp_path: Path) -> None:
        cca = self.node(tmp_path, "cca")
        leave_out = [
            part for each in ("rems", "rpv", "config", "version") for part in ("--leave-out", each)
        ]
        ran = run(
            *("create", "--evidence", cca, "--unverified", "--id", "node"),
            *("--out-dir", tmp_path, *leave_out),
        )
        assert ran.status == 0, ran.err
        assert "not verified" in ran.err
        platform, realm = read(tmp_path / "node-platform.cbor"), read(tmp_path / "node-realm.cbor")
        assert {value.key for value in platform.reference_values} == {"cca.software-component"}
        assert {value.version for value in platform.reference_values} == {""}
        assert platform.trust_anchors == ()
        assert [value.key for value in realm.reference_values] == ["cca.rim"]

    def test_evidence_of_another_key_makes_nothing(
        self, run: Run, psa: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other.pub"
        other.write_bytes(
            p256_signer("other").public_key.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        ran = run(
            *("create", "--evidence", psa, "--key", other, "--id", "node"),
            *("--out-dir", tmp_path, "--allow-simulator"),
        )
        assert ran.status == 2
        assert not (tmp_path / "node.cbor").exists()

    def test_the_simulator_and_test_keys_must_be_allowed(
        self, run: Run, psa: Path, tmp_path: Path
    ) -> None:
        arguments = ("create", "--evidence", psa, "--key", psa.with_suffix(".pub"), "--id", "n")
        ran = run(*arguments, "--out-dir", tmp_path)
        assert ran.status == 2
        assert "--allow-simulator" in ran.err
        token = vectors("psa") / "veraison-services/psa.good.cose"
        jwk = token.with_name("ec.p256.jwk")
        arguments = ("create", "--evidence", token, "--key", jwk, "--id", "n")
        assert "--allow-test-keys" in run(*arguments, "--out-dir", tmp_path).err
        assert run(*arguments, "--out-dir", tmp_path, "--allow-test-keys").status == 0

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ((), "Give either --from or --evidence"),
            (("--evidence", "x", "--from", "y"), "Give either --from or --evidence"),
            (("--evidence", "x"), "Give --id"),
            (("--evidence", "x", "--id", "n"), "Give either --key"),
            (("--evidence", "x", "--id", "n", "--key", "k", "--unverified"), "Give either --key"),
            (("--evidence", "x", "--id", "n", "--unverified", "--with-key"), "--with-key needs"),
            (("--from", "x", "--id", "n"), "--id goes with --evidence"),
            (("--from", "x", "--key", "k"), "--key goes with --evidence"),
            (("--from", "x", "--vendor", "v"), "--vendor goes with --evidence"),
        ],
    )
    def test_options_that_do_not_go_together_are_refused(
        self, run: Run, options: tuple[str, ...], reason: str
    ) -> None:
        ran = run("create", *options)
        assert ran.status == 3
        assert reason in ran.err

    def test_an_identifier_does_not_lead_out_of_the_directory(
        self, run: Run, psa: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        out.mkdir()
        arguments = ("create", "--evidence", psa, "--unverified", "--out-dir", out)
        assert run(*arguments, "--id", "../../x").status == 0
        assert [path.name for path in out.iterdir()] == ["_.._x.cbor"]
        assert run(*arguments, "--id", "..").status == 3


PSA_YAML = f"""
id: acme-1
profile: psa
vendor: ACME
model: RoadRunner
implementation-id: {"00" * 32}
not-after: 2030-01-01
components:
  - name: BL
    version: 1.0
    digest: {DIGEST}
    signer-id: {DIGEST}
keys:
  - instance-id: "{UEID}"
    key-file: iak.pub
"""


class TestCreateFromADescription:
    @pytest.fixture(autouse=True)
    def _key_beside(self, tmp_path: Path) -> None:
        (tmp_path / "iak.pub").write_bytes(
            p256_signer("iak").public_key.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    @staticmethod
    def create(run: Run, folder: Path, text: str, suffix: str = "yaml") -> Ran:
        path = folder / f"node.{suffix}"
        path.write_text(text)
        return run("create", "--from", path, "--out-dir", folder)

    def test_yaml_is_read_as_texts(self, run: Run, tmp_path: Path) -> None:
        ran = self.create(run, tmp_path, PSA_YAML)
        assert ran.status == 0, ran.err
        found = read(tmp_path / "acme-1.cbor")
        (value,) = found.reference_values
        assert (value.name, value.version) == ("BL", "1.0")
        assert value.environment.vendor == "ACME"
        assert value.not_after is not None
        assert value.not_after.isoformat() == "2030-01-01T00:00:00+00:00"
        assert found.trust_anchors[0].environment.instance_id.hex() == UEID

    def test_toml_and_json_say_the_same(self, run: Run, tmp_path: Path) -> None:
        tree = {
            "id": "n",
            "profile": "tpm2",
            "class-id": "ff",
            "registers": {"0": [DIGEST], "7": [f"sha-256:{DIGEST}"], "log": [DIGEST]},
        }
        toml = (
            f'id = "n"\nprofile = "tpm2"\nclass-id = "ff"\n[registers]\n'
            f'0 = ["{DIGEST}"]\n7 = ["sha-256:{DIGEST}"]\nlog = ["{DIGEST}"]\n'
        )
        assert self.create(run, tmp_path, json.dumps(tree), "json").status == 0
        first = (tmp_path / "n.cbor").read_bytes()
        (tmp_path / "n.cbor").unlink()
        assert self.create(run, tmp_path, toml, "toml").status == 0
        assert (tmp_path / "n.cbor").read_bytes() == first
        (value,) = read(tmp_path / "n.cbor").reference_values
        assert set(value.registers) == {0, 7, "log"}

    def test_a_cca_platform_and_a_realm(self, run: Run, tmp_path: Path) -> None:
        platform = {
            "id": "p",
            "profile": "cca-platform",
            "implementation-id": "00" * 32,
            "components": [{"digest": f"sha-256:{DIGEST}", "signer-id": DIGEST}],
            "config": "cfcf",
            "config-mask": "ff00",
        }
        realm = {"id": "r", "profile": "cca-realm", "rim": DIGEST, "rems": [DIGEST], "rpv": "aa"}
        for tree in (platform, realm):
            ran = self.create(run, tmp_path, json.dumps(tree), "json")
            assert ran.status == 0, ran.err
        assert read(tmp_path / "p.cbor").reference_values[1].raw_mask == b"\xff\x00"
        assert len(read(tmp_path / "r.cbor").reference_values) == 3

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            ("profile: psa", "profile: sev", "profile is 'sev'; expected one of psa"),
            ("id: acme-1\n", "", "id; expected a value: the key is required"),
            ("vendor: ACME", "vendr: ACME", "vendr; expected one of the keys id"),
            ("vendor: ACME", "rim: aa", "rim; expected no such key for psa"),
            ("vendor: ACME", "id: again", "the key 'id' occurs twice"),
            (f"digest: {DIGEST}", "digest: xyz", "components[0].digest is 'xyz'; expected hex"),
            (f"    signer-id: {DIGEST}\n", "", "components[0].signer-id; expected a value"),
            (f"digest: {DIGEST}", "digest: sha-512:aa", "a sha-512 digest of 1 octets"),
            (f"implementation-id: {'00' * 32}\n", "", "implementation-id; expected a value"),
            ("key-file: iak.pub", "key-file: none.pub", "none.pub; expected a readable file"),
            ("    key-file: iak.pub\n", "", "keys[0]; expected either key or key-file"),
            ("not-after: 2030-01-01", "not-after: soon", "not-after is 'soon'; expected a date"),
            ("vendor: ACME", "vendor: [", "expected YAML"),
            ("vendor: ACME", "vendor: !!python/object:x {}", "vendor"),
        ],
    )
    def test_one_defect_is_named_with_file_and_key(
        self, run: Run, tmp_path: Path, old: str, new: str, reason: str
    ) -> None:
        assert old in PSA_YAML
        ran = self.create(run, tmp_path, PSA_YAML.replace(old, new))
        assert ran.status in {2, 3}
        assert reason in ran.err
        assert not (tmp_path / "acme-1.cbor").exists()

    def test_another_suffix_is_refused(self, run: Run, tmp_path: Path) -> None:
        ran = self.create(run, tmp_path, PSA_YAML, "txt")
        assert ran.status == 3
        assert "ends in .toml, .yaml or .json" in ran.err
