# SPDX-License-Identifier: Apache-2.0
"""`troth verify EVIDENCE`: decode, verify and appraise one piece of Evidence, offline."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from troth.cli.endorsement_files import LAPSED, OperatorEndorsements, read_endorsements
from troth.cli.inputs import (
    HexBytes,
    Rfc3339,
    printable,
    read_collateral,
    read_input,
)
from troth.cli.policy_files import evaluator_for, read_policy
from troth.cli.tpm2_files import Tpm2Files, tpm2_options
from troth.cli.verdict_text import verdict_text
from troth.clock import SystemClock
from troth.errors import (
    CollateralError,
    ConfigurationError,
    DecodeError,
    FreshnessError,
    TrothError,
    UnavailableError,
)
from troth.evidence.context import Collateral
from troth.evidence.evidence import Unchecked
from troth.evidence.freshness import EXPECTED_SIZES
from troth.evidence.registry import SCHEMES, detect
from troth.evidence.vendors import VENDOR_ROOTS
from troth.formats.ar4si import TrustTier
from troth.formats.ear import Dialect
from troth.formats.ear.codec import ear_claims
from troth.verifier.failure import failure_result
from troth.verifier.finding import Finding
from troth.verifier.policy import AppraisalPolicy
from troth.verifier.result import AttestationResult, VerifierIdentity
from troth.verifier.verifier import AUTO, Verifier

__all__ = ["verify"]

EXIT_NOT_AFFIRMING: Final = 1
EXIT_REFUSED: Final = 2

_IDENTITY: Final = VerifierIdentity.of_this_build()
_UNCHECKED: Final = Unchecked("no --nonce was given")
_HEX_TEXT: Final = re.compile(rb"\s*([0-9A-Fa-f]{2}\s*){8,}", re.ASCII)
_TEXT_REMEDY: Final = "The file holds hexadecimal text: give the octets (xxd -r -p FILE)."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """The command line, read."""

    path: str
    scheme: str
    nonce: bytes | None
    at: datetime
    policy: AppraisalPolicy
    custom_policy: bool
    endorsements: OperatorEndorsements
    remarks: Sequence[Finding]
    collateral: Collateral
    vendors: frozenset[str]
    fetch_into: Path | None
    service: str
    grace: timedelta
    tpm2: Tpm2Files
    allow_test_keys: bool
    allow_simulator: bool


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("evidence")
@click.option(
    "--scheme",
    type=click.Choice([AUTO, *sorted(SCHEMES)]),
    default=AUTO,
    show_default=True,
    help="Kind of Evidence; auto recognises it by its first octets.",
)
@click.option(
    "--nonce",
    type=HexBytes(),
    metavar="HEX",
    help="Challenge that the Evidence must carry, whole. Without it, freshness is not checked.",
)
@click.option(
    "--trust-anchor",
    "trust_anchors",
    multiple=True,
    metavar="FILE",
    help="Attestation key (PEM, JWK, TPM2B_PUBLIC) believed for every instance, or root "
    "certificate. May be repeated.",
)
@click.option(
    "--trust-vendor",
    "vendors",
    type=click.Choice(sorted(VENDOR_ROOTS)),
    multiple=True,
    help="Believe the roots that this vendor of hardware publishes. May be repeated.",
)
@click.option(
    "--collateral",
    metavar="DIR",
    help="Directory with the vendor's certificates, revocation lists and the like.",
)
@click.option(
    "--fetch-collateral",
    is_flag=True,
    help="Ask the vendor's service for what is missing, and keep it in the directory of "
    "--collateral. Without it, nobody is asked.",
)
@click.option(
    "--collateral-service",
    metavar="URL",
    default="",
    help="Ask this service, such as a PCCS of your own, instead of the vendor's.",
)
@click.option(
    "--collateral-grace",
    metavar="HOURS",
    type=click.IntRange(min=0, max=24 * 365),
    default=0,
    help="How long a document of the vendor's still serves after its next update.",
)
@click.option(
    "--reference-values",
    multiple=True,
    metavar="FILE",
    help="CoRIM with Reference Values, and attestation keys if it has any. May be repeated.",
)
@click.option(
    "--corim-key",
    "corim_keys",
    multiple=True,
    metavar="FILE",
    help="Key that signed CoRIMs must verify under. Unsigned ones are taken as your own.",
)
@click.option("--policy", metavar="FILE", help="Appraisal Policy in Rego; else the built-in one.")
@click.option(
    "--at", type=Rfc3339(), metavar="RFC3339", help="Appraise as of this time, not of now."
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    help="Default: text on a terminal, json elsewhere.",
)
@click.option("--allow-test-keys", is_flag=True, help="INSECURE: take published test keys.")
@click.option("--allow-simulator", is_flag=True, help="INSECURE: take the platform simulator.")
@tpm2_options
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    evidence: str,
    *,
    scheme: str,
    nonce: bytes | None,
    trust_anchors: Sequence[str],
    vendors: Sequence[str],
    collateral: str | None,
    fetch_collateral: bool,
    collateral_service: str,
    collateral_grace: int,
    reference_values: Sequence[str],
    corim_keys: Sequence[str],
    policy: str | None,
    at: datetime | None,
    output: str | None,
    allow_test_keys: bool,
    allow_simulator: bool,
    **tpm2: object,
) -> None:
    r"""Verify and appraise EVIDENCE, a file or - for standard input.

    \b
    Exit status:
      0  affirming
      1  authentic, but not affirming; no Reference Values is not affirming
      2  refused: malformed or not authentic; or undecided, because something that a vendor
         hands out is missing; one line on standard error says which and why
      3  wrong usage

    \b
    Example:
      troth verify token.cbor --nonce 01…20 --trust-anchor iak.pem --reference-values device.corim
      troth verify --scheme tpm2 quote.bin --signature quote.sig --pcrs pcrs.json \
          --event-log boot.log --trust-anchor ak.pub --pcr-selection 0,1,4,7,9 --nonce 01…20
    """
    now = at or SystemClock().now()
    endorsements, remarks = read_endorsements(
        trust_anchors, reference_values, corim_keys, now=now, scheme=scheme
    )
    request = _Request(
        path=evidence,
        scheme=scheme,
        nonce=nonce,
        at=now,
        policy=AppraisalPolicy.default() if policy is None else read_policy(policy),
        custom_policy=policy is not None,
        endorsements=endorsements,
        remarks=remarks,
        collateral=read_collateral(collateral) if collateral is not None else Collateral(),
        vendors=frozenset(vendors),
        fetch_into=_fetch_directory(collateral, collateral_service, fetch=fetch_collateral),
        service=collateral_service,
        grace=timedelta(hours=collateral_grace),
        tpm2=Tpm2Files.of(scheme, trust_anchors, tpm2),
        allow_test_keys=allow_test_keys,
        allow_simulator=allow_simulator,
    )
    as_json = output == "json" or (output is None and not sys.stdout.isatty())
    ctx.exit(_run(request, as_json=as_json))


def _run(request: _Request, *, as_json: bool) -> int:
    data = b""
    try:
        data = request.tpm2.evidence(read_input(request.path))
        result = _appraise(request, data)
    except ConfigurationError:
        raise
    except TrothError as exc:
        return _refuse(request, data, exc, as_json=as_json)
    if as_json:
        click.echo(json.dumps(_report(result, authentic=True), indent=2))
    else:
        click.echo(verdict_text(result))
    return 0 if result.status is TrustTier.AFFIRMING else EXIT_NOT_AFFIRMING


def _appraise(request: _Request, data: bytes) -> AttestationResult:
    nonce = request.nonce
    impossible = nonce is not None and len(nonce) not in EXPECTED_SIZES
    with evaluator_for(custom=request.custom_policy) as evaluator:
        verifier = Verifier(
            identity=_IDENTITY,
            endorsements=request.endorsements,
            policy=request.policy,
            evaluator=evaluator,
            collateral=request.collateral,
            vendors=request.vendors,
            grace=request.grace,
            schemes=request.tpm2.schemes(),
            allow_test_keys=request.allow_test_keys,
            allow_simulator=request.allow_simulator,
        )

        def appraise(fetched: Collateral | None) -> AttestationResult:
            return verifier.appraise(
                data,
                now=request.at,
                challenge=_UNCHECKED if nonce is None or impossible else nonce,
                scheme=request.scheme,
                collateral=fetched,
            )

        try:
            result = appraise(_fetched_from_amd(request, data))
        except CollateralError as exc:
            result = appraise(_fetched_from_intel(request, exc))
    if nonce is not None and impossible:
        raise FreshnessError(
            f"--nonce has {len(nonce)} octets, so it is not the challenge in the Evidence: "
            "challenges have 8 to 64 and are compared whole"
        )
    return replace(result, notes=(*result.notes, *request.remarks))


def _fetch_directory(collateral: str | None, service: str, *, fetch: bool) -> Path | None:
    if not fetch and service:
        raise ConfigurationError(
            source="--collateral-service", accepted="--fetch-collateral beside it"
        )
    if not fetch:
        return None
    if collateral is None:
        raise ConfigurationError(
            source="--fetch-collateral", accepted="--collateral DIR beside it, to keep it in"
        )
    return Path(collateral)


def _fetched_from_amd(request: _Request, data: bytes) -> Collateral | None:
    if request.fetch_into is None:
        return None
    name = detect(data) if request.scheme == AUTO else request.scheme
    if name in {"sgx", "tdx"}:
        return None  # asked for once the Evidence is known to be from a platform of Intel's
    if name != "sev_snp":
        raise ConfigurationError(
            source="--fetch-collateral", value=name, accepted="Evidence of sev_snp, sgx or tdx"
        )
    from troth.adapters.amd_kds import KDS_URL, AmdKds  # noqa: PLC0415 - only where needed
    from troth.evidence.sev_snp.evidence import decode  # noqa: PLC0415 - as above
    from troth.evidence.sev_snp.kds import wanted  # noqa: PLC0415 - as above

    service = AmdKds(request.fetch_into, base_url=request.service or KDS_URL)
    return service.fetch(wanted(decode(data)), now=request.at)


def _fetched_from_intel(request: _Request, error: CollateralError) -> Collateral:
    if request.fetch_into is None or not error.wanted:
        raise error
    from troth.adapters.intel_pcs import PCS_URL, IntelPcs  # noqa: PLC0415 - only where needed
    from troth.evidence.intel.pcs import requests_for  # noqa: PLC0415 - as above

    service = IntelPcs(request.fetch_into, base_url=request.service or PCS_URL)
    return service.fetch(requests_for(error), now=request.at)


def _refuse(request: _Request, data: bytes, error: TrothError, *, as_json: bool) -> int:
    message = printable(str(error))
    # A vendor's document is missing: nothing follows about the Attester.
    undecided = isinstance(error, UnavailableError)
    lapsed = [remark.claim for remark in request.remarks if remark.actual.startswith(LAPSED)]
    if lapsed:
        message += f" ({printable(', '.join(lapsed))}: {LAPSED})"
    if as_json:
        result = failure_result(
            error,
            scheme=_looks_like(request, data),
            now=request.at,
            verifier=_IDENTITY,
            policy=request.policy,
        )
        report = _report(result, authentic=False)
        report["findings"] = [_refusal(error, message, undecided=undecided).to_json()]
        report["error"] = message
        report["undecided"] = undecided
        click.echo(json.dumps(report, indent=2))
    remedy = _TEXT_REMEDY if _HEX_TEXT.fullmatch(data) else printable(error.remedy)
    remedy = f" {remedy}" if remedy else ""
    end = "" if message.endswith((".", "!")) else "."
    word = "undecided" if undecided else "refused"
    click.echo(f"troth verify: {word}: {message}{end}{remedy}", err=True)
    return EXIT_REFUSED


def _looks_like(request: _Request, data: bytes) -> str:
    if request.scheme != AUTO:
        return request.scheme
    try:
        return detect(data)
    except DecodeError:
        return ""


def _refusal(error: TrothError, message: str, *, undecided: bool) -> Finding:
    return Finding(
        claim="evidence",
        expected="well-formed, authentic Evidence",
        actual=message,
        rule=f"{'undecided' if undecided else 'refused'} before appraisal: {error.code}",
        remedy=error.remedy,
        severity="note" if undecided else "contraindicated",
    )


def _report(result: AttestationResult, *, authentic: bool) -> dict[str, Any]:
    return {
        "authentic": authentic,
        "scheme": result.scheme or None,
        "status": result.status.word,
        "tier": result.tier.value,
        "claims": {
            label: dict(submod.claims) for label, submod in result.submods.items() if authentic
        },
        "findings": [finding.to_json() for finding in result.findings],
        "insecure": list(result.insecure),
        "policy": {"id": result.policy_id, "sha-256": result.policy_digest},
        "reference_values": {
            "epoch": result.reference_epoch,
            "matched": [each for submod in result.submods.values() for each in submod.matched],
        },
        "ear": ear_claims(result.to_ear(), Dialect.IETF_03, wire="json"),
    }
