"""The manifests beside the chart: as Kubernetes' own schemas have them, and agreeing with one another."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from event_archive.cli import EXIT_USAGE, ingest, ingest_logs
from event_archive.config.environment import PipelineSettings
from event_archive.config.sources import ApiSettings, LogsSettings
from event_archive.config.values import parse_budget
from event_archive_tests.deploy import chart
from event_archive_tests.deploy.manifests import (
    MANIFESTS,
    VERSIONS,
    Document,
    documents,
    manifest,
    pod_of,
    problems_of_pod,
    validate,
    with_optional_variables,
)

FILES = sorted(MANIFESTS.glob("*.yaml*"))
CRONJOBS = ("cronjob.yaml", "cronjob-ingest-api.yaml", "cronjob-ingest-logs.yaml")
# Kinds of the Secrets Store CSI driver and of the Prometheus Operator, for which there is no schema in Kubernetes.
CUSTOM = {"SecretProviderClass", "ServiceMonitor"}


def everything() -> list[Document]:
    return [document for path in FILES for document in documents(path.read_text())]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("read", [str, with_optional_variables], ids=["as it stands", "with optional variables"])
def test_a_manifest_fits_kubernetes_schema(path: Path, version: str, read: Callable[[str], str]):
    found = documents(read(path.read_text()))
    assert found
    for document in found:
        if document["kind"] not in CUSTOM:
            validate(document, version)


def test_the_cronjob_runs_at_two_utc_alone_and_within_the_specifications_resources():
    cronjob = manifest("cronjob.yaml", "CronJob")
    spec, job, pod = cronjob["spec"], cronjob["spec"]["jobTemplate"]["spec"], pod_of(cronjob)
    (container,) = pod["containers"]
    assert (spec["schedule"], spec["timeZone"]) == (PipelineSettings.model_fields["archive_cron"].default, "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert pod["restartPolicy"] == "Never"
    assert container["args"] == ["event-archive", "run"]
    assert "command" not in container
    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "300m", "memory": "512Mi"},
    }
    assert {"startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"} <= spec.keys()
    assert {"activeDeadlineSeconds", "backoffLimit"} <= job.keys()
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [EXIT_USAGE]
    assert rule["onExitCodes"]["containerName"] == pod["containers"][0]["name"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert problems_of_pod(pod) == []


@pytest.mark.parametrize(
    ("name", "cron", "grace_seconds"),
    [
        ("api", ApiSettings.model_fields["api_cron"].default, ingest._GRACE_SECONDS),
        ("logs", LogsSettings.model_fields["logs_cron"].default, ingest_logs._GRACE_SECONDS),
    ],
)
def test_an_ingestions_cronjob_is_the_archives_but_for_its_command_and_its_times(
    name: str, cron: str, grace_seconds: float
):
    archive, ingestion = manifest("cronjob.yaml", "CronJob"), manifest(f"cronjob-ingest-{name}.yaml", "CronJob")
    spec, job, pod = ingestion["spec"], ingestion["spec"]["jobTemplate"]["spec"], pod_of(ingestion)
    (container,), (theirs,) = pod["containers"], pod_of(archive)["containers"]
    assert (spec["schedule"], spec["timeZone"]) == (cron, "Etc/UTC")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert container["args"] == ["event-archive", "ingest", name]
    own = {"args", "env"}
    assert {k: v for k, v in container.items() if k not in own} == {k: v for k, v in theirs.items() if k not in own}
    assert {k: v for k, v in pod.items() if k != "containers"} == {
        k: v for k, v in pod_of(archive).items() if k != "containers"
    }
    assert job["podFailurePolicy"] == archive["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]
    budget = parse_budget({of["name"]: of["value"] for of in container["env"]}["RUN_BUDGET"])
    assert job["activeDeadlineSeconds"] > budget.total_seconds()
    assert pod["terminationGracePeriodSeconds"] > grace_seconds
    assert problems_of_pod(pod) == []


def test_what_a_pod_names_exists():
    cronjobs = [manifest(name, "CronJob") for name in CRONJOBS]
    names = {(document["kind"], document["metadata"]["name"]) for document in everything()}
    for pod in map(pod_of, [*cronjobs, chart.code_server(chart.values_of())]):
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        (container,) = pod["containers"]
        for source in container["envFrom"]:
            assert ("Secret", source["secretRef"]["name"]) in names
        (config,) = [volume["configMap"] for volume in pod["volumes"] if "configMap" in volume]
        assert ("ConfigMap", config["name"]) in names
        # Without it the pods of one table would never start.
        assert config["optional"] is True
    (keys,) = [document for document in everything() if document["metadata"]["name"] == "dagster-postgresql"]
    assert chart.values_of()["global"]["postgresqlSecretName"] == keys["metadata"]["name"]
    assert keys["stringData"].keys() == {"postgresql-password"}


def test_chart_and_cronjob_run_one_image_as_one_account():
    cronjob, server = pod_of(manifest("cronjob.yaml", "CronJob")), pod_of(chart.code_server(chart.values_of()))
    assert cronjob["containers"][0]["image"] == server["containers"][0]["image"]
    assert cronjob["serviceAccountName"] == server["serviceAccountName"]
    user = re.findall(r"^USER (\d+):(\d+)$", (MANIFESTS.parents[1] / "Dockerfile").read_text(), re.MULTILINE)
    for pod in (cronjob, server):
        assert [(str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"]))] == user


def test_every_pod_is_in_a_network_policy_and_may_reach_what_it_needs():
    server, runs = [document for document in everything() if document["kind"] == "NetworkPolicy"]
    assert server["spec"]["podSelector"]["matchLabels"] == {
        "deployment": chart.values_of()["dagster-user-deployments"]["deployments"][0]["name"]
    }
    (incoming,) = server["spec"]["ingress"]
    port = chart.values_of()["dagster-user-deployments"]["deployments"][0]["port"]
    assert incoming["ports"] == [{"protocol": "TCP", "port": port}]
    assert runs["spec"]["ingress"] == []
    (expression,) = runs["spec"]["podSelector"]["matchExpressions"]
    templates = [manifest(name, "CronJob")["spec"]["jobTemplate"]["spec"]["template"] for name in CRONJOBS]
    components = {template["metadata"]["labels"]["app.kubernetes.io/component"] for template in templates}
    assert expression["key"] == "app.kubernetes.io/component"
    assert set(expression["values"]) == {"run_worker", *components}
    for policy in (server, runs):
        open_ports = {(port["protocol"], port["port"]) for rule in policy["spec"]["egress"] for port in rule["ports"]}
        assert open_ports == {("UDP", 53), ("TCP", 53), ("TCP", 5432), ("TCP", 6432), ("TCP", 443)}
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_no_file_holds_a_secret():
    for document in everything():
        if document["kind"] == "Secret":
            assert set(document["stringData"].values()) == {""}


def test_key_vault_fills_the_secret_that_pods_read():
    provider = manifest("secretproviderclass.yaml", "SecretProviderClass")
    (secret,) = provider["spec"]["secretObjects"]
    known = manifest_of_secret(secret["secretName"])["stringData"]
    objects = {
        yaml.safe_load(entry)["objectName"]
        for entry in yaml.safe_load(provider["spec"]["parameters"]["objects"])["array"]
    }
    for entry in secret["data"]:
        assert entry["key"] in known
        assert entry["objectName"] in objects


def manifest_of_secret(name: str) -> Document:
    (found,) = [d for d in everything() if d["kind"] == "Secret" and d["metadata"]["name"] == name]
    return found
