# SPDX-License-Identifier: Apache-2.0
"""`troth explain`: results, reports, Evidence, and what a server has on record, in words."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from troth.cli.explain_record import is_record_id, record_report, record_text
from troth.cli.inputs import printable, read_input, read_keys
from troth.cli.operators import admin_socket_option, usual_admin_socket
from troth.cli.verdict_text import finding_lines, status_word
from troth.errors import DecodeError, TrothError
from troth.evidence import registry
from troth.formats import cbor
from troth.formats.ar4si import TrustTier, TrustworthinessVector, tier_of
from troth.formats.ar4si_values import VERIFIER_MALFUNCTION, describe
from troth.formats.base64url import decode_base64url
from troth.formats.cose import Sign1
from troth.formats.ear import Ear, TrothClaims
from troth.formats.ear.codec import ear_from_claims
from troth.formats.jose import DEFAULT_ALGORITHMS, verify_jwt
from troth.formats.keys import VerificationKey
from troth.formats.strict_json import decode_json_object
from troth.verifier.finding import Finding

__all__ = ["explain"]

EXIT_REFUSED: Final = 2

_JWT = re.compile(rb"\s*[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\s*")
_CWT_TAG: Final = 61
_NOT_CHECKED: Final = "not checked: give the Verifier's public key with --key"
_PARTS: Final = ("claim", "expected", "actual", "rule", "remedy", "submod", "severity")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """One trustworthiness claim in words."""

    name: str
    value: int
    tier: str
    tag: str
    short: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One submod."""

    label: str
    status: str
    claims: Sequence[_Claim]
    policies: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explanation:
    """What there is to say.

    Attributes:
        kind: "attestation result", "report of troth verify" or "evidence".
        status: overall, or "" for Evidence, which has none.
        meaning: of the status, in a sentence.
        signature: what is known about it.
        facts: name to text, in the order to show.
        parts: the submods.
        findings: all of them.
        evidence: claims of Evidence, by label.
    """

    kind: str
    status: str = ""
    meaning: str = ""
    signature: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    parts: Sequence[_Part] = ()
    findings: Sequence[Finding] = ()
    evidence: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", metavar="FILE|ID")
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="FILE",
    help="Public key of the Verifier, PEM or JWK, to check a result's signature. May be repeated.",
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    help="Default: text on a terminal, json elsewhere.",
)
@admin_socket_option(
    "Socket of the server that has ID on record. Default: TROTH_ADMIN_SOCKET, or the usual one."
)
@click.pass_context
def explain(
    ctx: click.Context,
    file: str,
    *,
    keys: Sequence[str],
    output: str | None,
    admin_socket: str | None,
) -> None:
    r"""Say in words what FILE (or - for standard input) means, or why the join ID was refused.

    FILE is an EAR (JWT, CWT or claims set), the JSON that `troth verify` printed, or Evidence.
    Evidence is only taken apart here; `troth verify` says whether to believe it.

    ID is what a refused node was told (r…), or a node's id (n…); its server says what it has on
    record. A file of that name goes first.

    \b
    Exit status:
      0  explained, whatever the verdict is
      2  not something that Troth can read, or its signature does not verify
      3  wrong usage
    """
    as_json = output == "json" or (output is None and not sys.stdout.isatty())
    if is_record_id(file) and not Path(file).exists():
        _explain_record(file, admin_socket or usual_admin_socket(), as_json=as_json)
        return
    if admin_socket is not None:
        raise click.UsageError("--admin-socket goes with the id of a refused join or of a node")
    verification_keys = [key for path in keys for key in read_keys(path)]
    data = read_input(file, what=file)
    try:
        explanation = _explained(data, verification_keys)
    except TrothError as exc:
        remedy = f" {printable(exc.remedy)}" if exc.remedy else ""
        click.echo(f"troth explain: {printable(str(exc))}.{remedy}", err=True)
        ctx.exit(EXIT_REFUSED)
    if as_json:
        click.echo(json.dumps(_to_json(explanation), indent=2))
    else:
        click.echo("\n".join(_to_text(explanation)))


def _explain_record(record_id: str, socket: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(record_report(record_id, socket), indent=2))
    else:
        click.echo("\n".join(record_text(record_id, socket)))


def _explained(data: bytes, keys: Sequence[VerificationKey]) -> _Explanation:
    if _JWT.fullmatch(data):
        return _explained_jwt(data.strip(), keys)
    if data.lstrip()[:1] == b"{":
        value = decode_json_object(data, format="JSON")
        if "authentic" in value:
            return _explained_report(value)
        return _explained_ear(ear_from_claims(value, wire="json"), "unsigned")
    try:
        return _explained_evidence(data)
    except DecodeError as as_evidence:
        try:
            return _explained_cwt(data, keys)
        except DecodeError:
            raise as_evidence from None


def _explained_jwt(token: bytes, keys: Sequence[VerificationKey]) -> _Explanation:
    if keys:
        header, claims = verify_jwt(token, keys, format="EAR")
        signature = f"verified, {header['alg']}"
    else:
        payload = decode_base64url(token.decode("ascii").split(".")[1], format="EAR")
        claims, signature = decode_json_object(payload, format="EAR"), _NOT_CHECKED
    return _explained_ear(ear_from_claims(claims, wire="json"), signature)


def _explained_cwt(data: bytes, keys: Sequence[VerificationKey]) -> _Explanation:
    value = cbor.decode(data, format="EAR")
    if isinstance(value, cbor.Tag) and value.number == _CWT_TAG:
        value = value.value
    message = Sign1.from_value(value, format="EAR", tagging="either")
    signature = _NOT_CHECKED
    for index, key in enumerate(keys):
        try:
            message.verify(key, algorithms=DEFAULT_ALGORITHMS)
        except TrothError:
            if index == len(keys) - 1:
                raise
        else:
            signature = f"verified, {message.algorithm}"
            break
    claims = cbor.decode(message.payload, format="EAR")
    return _explained_ear(ear_from_claims(claims, wire="cbor"), signature)


def _explained_ear(ear: Ear, signature: str) -> _Explanation:
    facts = {
        "profile": ear.profile,
        "Verifier": f"{ear.verifier_id.developer}, {ear.verifier_id.build}",
        "issued": ear.issued_at.isoformat(),
        "expires": ear.expires_at.isoformat() if ear.expires_at else "never",
        "keys vouched for": str(len(ear.keys)),
        "insecure": "; ".join(ear.insecure),
        **_troth_facts(ear.troth),
    }
    findings = [
        _finding(each, label)
        for label, submod in ear.submods.items()
        for each in submod.troth.findings
    ]
    findings += [_finding(each, "") for each in ear.troth.findings]
    return _Explanation(
        kind="attestation result",
        status=ear.overall_status.word,
        meaning=_meaning(ear),
        signature=signature,
        facts={name: text for name, text in facts.items() if text},
        parts=[
            _part(label, submod.status, submod.vector, submod.policy_ids)
            for label, submod in ear.submods.items()
        ],
        findings=findings,
    )


def _explained_report(report: Mapping[str, object]) -> _Explanation:
    ear = _explained_ear(ear_from_claims(report.get("ear"), wire="json"), "unsigned")
    findings = report.get("findings")
    if not isinstance(findings, list):
        raise DecodeError("findings is not an array", format="report of troth verify")
    error = report.get("error")
    facts = {"refused": error, **ear.facts} if isinstance(error, str) else ear.facts
    return _Explanation(
        kind="report of troth verify",
        status=ear.status,
        meaning=ear.meaning,
        signature=ear.signature,
        facts=facts,
        parts=ear.parts,
        findings=[_finding(each, "") for each in findings if isinstance(each, dict)],
    )


def _explained_evidence(data: bytes) -> _Explanation:
    name = registry.detect(data)
    decoded: Any = registry.scheme(name).decode(data)
    # Each scheme keeps its claims in parts of its own; all of them can be shown as JSON.
    parts: dict[str, Any] = {
        f"{name}-platform": getattr(decoded, "platform", None),
        f"{name}-realm": getattr(decoded, "realm", None),
        name: decoded,
    }
    claims = {
        label: getattr(part, member).to_json()
        for label, part in parts.items()
        for member in ("claims", "report", "document")
        if hasattr(getattr(part, member, None), "to_json")
    }
    return _Explanation(
        kind="evidence",
        signature="not checked: troth verify does that",
        facts={"scheme": name, "media type": decoded.media_type, "octets": str(len(data))},
        evidence=claims,
    )


def _meaning(ear: Ear) -> str:
    status = ear.overall_status
    vectors = [submod.vector for submod in ear.submods.values() if submod.vector is not None]
    values = {value for vector in vectors for _, value in vector.items()}
    if status is TrustTier.NONE and VERIFIER_MALFUNCTION in values:
        return (
            "Undecided: the Verifier could not find out, because something that it needs was "
            "missing or down. Nothing follows about the Attester."
        )
    return _MEANING[status]


_MEANING: Final = {
    TrustTier.AFFIRMING: "Nothing speaks against it.",
    TrustTier.WARNING: "Authentic, but not as described.",
    TrustTier.CONTRAINDICATED: "Something speaks against it: not to be trusted.",
    TrustTier.NONE: "Nothing was established, which denies and accuses nobody.",
}


def _part(
    label: str,
    status: TrustTier,
    vector: TrustworthinessVector | None,
    policies: Sequence[str],
) -> _Part:
    claims = []
    for name, value in vector.items() if vector is not None else ():
        described = describe(str(name), value)
        claims.append(
            _Claim(
                name=str(name),
                value=value,
                tier=tier_of(value).word,
                tag=described.tag,
                short=described.short,
                meaning=described.long,
            )
        )
    return _Part(label=label, status=status.word, claims=claims, policies=policies)


def _troth_facts(troth: TrothClaims) -> dict[str, str]:
    return {
        "scheme": troth.scheme,
        "tier": troth.tier,
        "component": troth.component,
        "layer": troth.layer,
        "policy": troth.policy_digest,
        "Reference Values epoch": troth.epoch,
        "boot session": troth.boot_session.hex(),
    }


def _finding(members: Mapping[str, object], submod: str) -> Finding:
    texts = {name: str(members.get(name, "")) for name in _PARTS}
    texts["submod"] = texts["submod"] or submod
    texts["severity"] = texts["severity"] or "contraindicated"
    return Finding(**texts)


def _to_json(explanation: _Explanation) -> dict[str, object]:
    return {
        "kind": explanation.kind,
        "status": explanation.status or None,
        "meaning": explanation.meaning or None,
        "signature": explanation.signature,
        "facts": dict(explanation.facts),
        "submods": {
            part.label: {
                "status": part.status,
                "policies": list(part.policies),
                "trustworthiness": {
                    claim.name: {
                        "value": claim.value,
                        "tier": claim.tier,
                        "tag": claim.tag,
                        "short": claim.short,
                        "meaning": claim.meaning,
                    }
                    for claim in part.claims
                },
            }
            for part in explanation.parts
        },
        "findings": [finding.to_json() for finding in explanation.findings],
        "claims": {label: dict(claims) for label, claims in explanation.evidence.items()},
    }


def _to_text(explanation: _Explanation) -> Iterator[str]:
    heading = explanation.kind.capitalize()
    if explanation.status:
        heading = f"{heading}: {status_word(explanation.status)}"
    yield heading
    if explanation.meaning:
        yield explanation.meaning
    yield f"signature {explanation.signature}"
    for name, text in explanation.facts.items():
        yield f"{name} {printable(text)}"
    for part in explanation.parts:
        yield ""
        policies = f", policy {', '.join(part.policies)}" if part.policies else ""
        yield f"{printable(part.label)}: {status_word(part.status)}{printable(policies)}"
        for claim in part.claims:
            yield f"  {printable(claim.name)} {claim.value} ({claim.tier}): {claim.short}"
            yield f"      {claim.meaning}"
    if explanation.findings:
        yield ""
        yield click.style("Findings", bold=True)
        yield from finding_lines(explanation.findings)
    for label, claims in explanation.evidence.items():
        yield ""
        yield f"{label}: what the Evidence says; nobody has checked it"
        for name, value in _flat(claims):
            yield f"  {printable(name)}: {printable(value)}"


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield from _flat(member, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _flat(member, f"{name}[{index}]")
    else:
        yield name, str(value)
