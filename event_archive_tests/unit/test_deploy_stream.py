"""The consumers of a stream as Kubernetes runs them: what the manifest says, and what the program keeps of it."""

import pytest

from event_archive.cli import ingest_stream
from event_archive.config.datasets import archiving, load_datasets
from event_archive.config.sources import StreamSettings
from event_archive_tests.deploy import chart
from event_archive_tests.deploy.manifests import MANIFESTS, Document, manifest, pod_of, problems_of_pod
from event_archive_tests.unit.test_deploy_variables import (
    BY_A_SECRET,
    OF_THE_STREAM,
    OF_THE_STREAM_IN_DAGSTER,
    SECRETS,
    named,
    set_alone,
    told_above,
)

FILE = "deployment-ingest-stream.yaml"
# A consumer has no end that a budget could set, nor one by its rejected records; pods have names of their own.
NOT_OF_A_DEPLOYMENT = {"RUN_BUDGET", "MAX_REJECTED", "STREAM_CONSUMER"}
OF_THE_RETENTION = {"EVENT_TABLE", "EVENT_RETENTION_PERIOD", "ARCHIVE_START_DATE", "DATASETS_FILE"}


def deployment() -> Document:
    return manifest(FILE, "Deployment")


def variables() -> dict[str, str]:
    (container,) = pod_of(deployment())["containers"]
    return named(container["env"])


def test_the_deployment_is_the_cronjobs_pod_but_for_what_never_ends():
    (container,), (theirs,) = (
        pod_of(of)["containers"] for of in (deployment(), manifest("cronjob-ingest-api.yaml", "CronJob"))
    )
    assert container["args"] == ["event-archive", "ingest", "stream"]
    own = {"args", "env", "ports", "livenessProbe", "readinessProbe", "resources"}
    assert {k: v for k, v in container.items() if k not in own} == {k: v for k, v in theirs.items() if k not in own}
    pod, other = pod_of(deployment()), pod_of(manifest("cronjob-ingest-api.yaml", "CronJob"))
    assert pod["terminationGracePeriodSeconds"] > ingest_stream._GRACE_SECONDS
    for name in ("serviceAccountName", "automountServiceAccountToken", "securityContext", "volumes"):
        assert pod[name] == other[name]
    assert problems_of_pod(pod) == []


def test_the_probes_ask_what_the_program_serves():
    (container,) = pod_of(deployment())["containers"]
    assert [of["containerPort"] for of in container["ports"]] == [int(variables()["HTTP_PORT"])]
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": container["ports"][0]["name"]}
    annotations = deployment()["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == variables()["HTTP_PORT"]
    assert annotations["prometheus.io/path"] == "/metrics"


def test_several_consumers_run_and_a_node_is_drained_one_at_a_time():
    spec, budget = deployment()["spec"], manifest(FILE, "PodDisruptionBudget")["spec"]
    assert spec["replicas"] > budget["maxUnavailable"] == 1
    labels = spec["template"]["metadata"]["labels"]
    assert budget["selector"] == spec["selector"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()


def test_the_deployment_knows_every_variable():
    assert variables().keys() == OF_THE_STREAM - SECRETS - NOT_OF_A_DEPLOYMENT | OF_THE_RETENTION
    assert told_above("envFrom", (MANIFESTS / FILE).read_text()) == OF_THE_STREAM & SECRETS - BY_A_SECRET


def test_what_may_be_set_is_accepted_and_is_the_default(monkeypatch: pytest.MonkeyPatch):
    set_alone({name: value for name, value in variables().items() if name != "DATASETS_FILE"}, monkeypatch)
    monkeypatch.setenv("REDIS_URL", "rediss://user:password@example.redis.cache.windows.net:6380/0")
    settings = StreamSettings.load()
    for name, field in StreamSettings.model_fields.items():
        if name not in {"redis_url", "pg_connection_string", "log_format"}:
            assert getattr(settings, name) == field.default
    assert archiving(settings.table, load_datasets())


def test_the_chart_sets_what_dagster_reads_of_a_stream():
    (served,) = chart.values_of()["dagster-user-deployments"]["deployments"]
    given, consumers = named(served["env"]), variables()
    of_dagster = OF_THE_STREAM_IN_DAGSTER - SECRETS
    assert {name for name in given if name.startswith("STREAM_")} == of_dagster
    assert {name: given[name] for name in of_dagster} == {name: consumers[name] for name in of_dagster}
