"""What Prometheus and Grafana are told: queries that parse, of metrics that there are, and monitors that find pods."""

import json
import re
from itertools import combinations
from typing import Any

import promql_parser
import pytest

from event_archive.observability import ingestion_metrics, metrics
from event_archive.sources.redis_stream.metrics import Metrics
from event_archive_tests.deploy.manifests import MANIFESTS, Document, documents, manifest, pod_of

DASHBOARD = MANIFESTS.parent / "grafana" / "event_archive.json"
RULES = [MANIFESTS.parents[1] / "docs" / "howto" / name for name in ("alerts.md", "stream.md")]


def _regex(*values: str) -> str:
    """What Grafana makes of a variable's values where ``:regex`` follows its name."""
    escaped = [re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


# What Grafana puts into a query before Prometheus gets it.
FILLED_IN = {
    "$__rate_interval": "5m",
    "${table:regex}": _regex('public."Event"', "public.it's"),
    "${stream:regex}": _regex('positions "a"'),
}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def queries() -> list[str]:
    shown = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    rules = [re.findall(r"^ +expr: (.+)$", page.read_text(), re.MULTILINE) for page in RULES]
    return [*shown, *(query for page in rules for query in page)]


def known() -> set[str]:
    """The names of all metrics, as a scrape shows them."""
    of_runs = {*metrics._METRICS, *ingestion_metrics._METRICS}
    return of_runs | set(re.findall(r"^(\w+)\{", Metrics("s", "g").text().decode(), re.MULTILINE))


@pytest.mark.parametrize("query", queries())
def test_a_query_parses_and_asks_for_a_metric_that_there_is(query: str):
    for name, value in FILLED_IN.items():
        query = query.replace(name, value)
    # Nothing is an escape sequence in backquotes, but this parser takes it for one.
    promql_parser.parse(re.sub("`([^`]*)`", lambda found: json.dumps(found[1]), query))
    asked = set(re.findall(r"\bevent_archive_\w+", query))
    assert asked
    assert asked <= known()


def test_a_rule_about_a_last_success_speaks_up_too_where_there_never_was_one():
    """A Pushgateway is told of none before there was one, and a comparison with what is not there is never true."""
    asked = [query for query in queries() if "_last_success_" in query and ">" in query]
    assert len(asked) == 2
    for query in asked:
        (success,) = set(re.findall(r"\w+_last_success_timestamp_seconds", query))
        assert query.endswith(f" or {success.replace('success', 'run')} unless {success}")


def test_the_panels_of_the_dashboard_lie_beside_one_another():
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 12
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not [(one, other) for one, other in combinations(places, 2) if overlap(one, other)]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[length] and other[start] < one[start] + one[length]
        for start, length in (("x", "w"), ("y", "h"))
    )


def test_every_variable_of_a_query_is_one_of_the_dashboard():
    asked = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard()["panels"]))) - {"__rate_interval"}
    assert asked == {variable["name"] for variable in dashboard()["templating"]["list"]}


def test_the_monitor_of_the_stream_finds_the_ports_of_its_pods():
    found: list[Document] = documents((MANIFESTS / "servicemonitor.yaml").read_text())
    service, monitor, gateway = found
    pods = manifest("deployment-ingest-stream.yaml", "Deployment")["spec"]["template"]
    assert service["spec"]["selector"].items() <= pods["metadata"]["labels"].items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    (container,) = pod_of(manifest("deployment-ingest-stream.yaml", "Deployment"))["containers"]
    assert port["targetPort"] in {of["name"] for of in container["ports"]}
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == [port["name"]]
    # Else each table would be told as the gateway's own.
    assert all(endpoint["honorLabels"] for endpoint in gateway["spec"]["endpoints"])
