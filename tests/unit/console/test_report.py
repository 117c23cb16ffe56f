# SPDX-License-Identifier: Apache-2.0
import json
import re

import msgspec

from troth.console.report import (
    ConnectionEnd,
    DirectionReport,
    FindingReport,
    NodeReport,
    PeerView,
    RefusalReport,
    Report,
    StepReport,
    TimelineEntry,
    WithdrawalReport,
    render_html,
    render_json,
)


def view(name: str, scheme: str, tier: str) -> PeerView:
    return PeerView(
        spiffe_id=f"spiffe://demo.example/node/{name}",
        scheme=scheme,
        status="affirming",
        tier=tier,
        binding="credential",
        result_age_seconds=1.25,
        verifier="troth server",
        tls_version="TLSv1.3",
        insecure=("platform simulator",),
    )


def report() -> Report:
    cloud, edge = view("cloud", "cca", "confidential"), view("edge", "psa", "measured")
    return Report(
        title="Troth: two stock Envoys, attested",
        generated_at="2026-11-25 12:00:00 UTC",
        seconds=12.5,
        trust_domain="demo.example",
        versions={"Troth": "0.1.0", "Envoy": "1.40.0"},
        insecure=("platform simulator",),
        nodes=(
            NodeReport(
                name="cloud",
                role="cloud node",
                scheme="cca",
                spiffe_id=cloud.spiffe_id,
                state="Admitted",
                status="affirming",
                tier="confidential",
                note="joined in 84 ms",
            ),
            NodeReport(
                name="edge",
                role="edge node",
                scheme="psa",
                spiffe_id=edge.spiffe_id,
                state="Quarantined",
                status="contraindicated",
                tier="measured",
                note="joined in 51 ms",
            ),
            NodeReport(
                name="changed",
                role="edge node",
                scheme="psa",
                spiffe_id="",
                state="refused",
                status="contraindicated",
                tier="",
                note="firmware measurement differs <b>",
            ),
        ),
        directions=(
            DirectionReport(
                caller="cloud",
                callee="edge",
                protocol="HTTP/2",
                outcome="200",
                client_saw=edge,
                server_saw=cloud,
            ),
            DirectionReport(
                caller="edge",
                callee="cloud",
                protocol="HTTP/2",
                outcome="200",
                client_saw=cloud,
                server_saw=edge,
            ),
        ),
        refusals=(
            RefusalReport(
                node="changed",
                refusal_id="r-1",
                detail="Evidence is authentic but not affirming",
                findings=(
                    FindingReport(
                        claim="software-components[1] (BL2)",
                        expected="sha-256:aa",
                        actual="sha-256:bb",
                        rule="reference value edge#1",
                        remedy="install the endorsed firmware",
                    ),
                ),
            ),
        ),
        withdrawal=WithdrawalReport(
            reference_value="edge/psa#1",
            node="edge",
            ends=(
                ConnectionEnd(
                    what="HTTP stream",
                    milliseconds=38.0,
                    bound_milliseconds=1000.0,
                    observed="stream reset",
                ),
            ),
            after="New calls are refused.",
        ),
        steps=(StepReport(title="Both nodes joined", passed=True),),
        timeline=(TimelineEntry(seconds=0.5, kind="join", text="cloud joined"),),
    )


def test_the_page_loads_nothing_and_escapes_what_it_shows() -> None:
    page = render_html(report())
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert "measurement differs &lt;b&gt;" in page
    assert "spiffe://demo.example/node/edge" in page


def test_one_failed_step_fails_the_report() -> None:
    good = report()
    assert json.loads(render_json(good))["passed"] is True
    bad = msgspec.structs.replace(
        good, steps=(*good.steps, StepReport(title="Streams ended", passed=False))
    )
    assert json.loads(render_json(bad))["passed"] is False
    assert "something did not happen" in render_html(bad)


def test_a_report_without_steps_has_not_passed() -> None:
    assert msgspec.structs.replace(report(), steps=()).passed is False
