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
    budget = parse_budget({of["name"]: of.get("value") for of in container["env"]}["RUN_BUDGET"])
    assert job["activeDeadlineSeconds"] > budget.total_seconds()
    assert pod["terminationGracePeriodSeconds"] > grace_seconds
    assert problems_of_pod(pod) == []


def test_the_cronjob_has_the_specifications_variables_and_secrets():
    (container,) = pod_of(yaml.safe_load((MANIFESTS / "cronjob.yaml").read_text()))["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    for name, secret in {
        "PG_CONNECTION_STRING": "pg-credentials",
        "AZURE_STORAGE_CONNECTION_STRING": "azure-storage-credentials",
    }.items():
        assert variables[name]["valueFrom"] == {"secretKeyRef": {"name": secret, "key": "connectionString"}}
    assert variables["EVENT_RETENTION_PERIOD"]["value"] == "1 year"
    assert variables["DRY_RUN"]["value"] == "false"
    # Nobody who has these two Secrets needs a third.
    assert [source["secretRef"]["optional"] for source in container["envFrom"]] == [True]


def test_what_a_pod_names_exists():
    cronjobs = [manifest(name, "CronJob") for name in CRONJOBS]
    names = {(document["kind"], document["metadata"]["name"]) for document in everything()}
    keys_of = {d["metadata"]["name"]: d["stringData"].keys() for d in everything() if d["kind"] == "Secret"}
    consumers = manifest("deployment-ingest-stream.yaml", "Deployment")
    for pod in map(pod_of, [*cronjobs, consumers, chart.code_server(chart.values_of())]):
        assert ("ServiceAccount", pod["serviceAccountName"]) in names
        (container,) = pod["containers"]
        for source in container["envFrom"]:
            assert ("Secret", source["secretRef"]["name"]) in names
        for variable in container["env"]:
            if "valueFrom" in variable:
                secret = variable["valueFrom"]["secretKeyRef"]
                assert secret["key"] in keys_of[secret["name"]]
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
    policies = {d["metadata"]["name"]: d for d in everything() if d["kind"] == "NetworkPolicy"}
    server, runs, stream = (policies[f"event-archive-{name}"] for name in ("code-server", "runs", "stream"))
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
    labels = manifest("deployment-ingest-stream.yaml", "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert stream["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert [rule["ports"] for rule in stream["spec"]["ingress"]] == [[{"protocol": "TCP", "port": 9090}]]
    for policy in (server, runs, stream):
        open_ports = {(port["protocol"], port["port"]) for rule in policy["spec"]["egress"] for port in rule["ports"]}
        further = {("TCP", 6379), ("TCP", 6380), ("TCP", 10000)} | ({("TCP", 9091)} if policy is not stream else set())
        assert open_ports == {("UDP", 53), ("TCP", 53), ("TCP", 5432), ("TCP", 6432), ("TCP", 443)} | further
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_the_webserver_is_reached_by_way_of_authentication_alone():
    policies = {d["metadata"]["name"]: d["spec"] for d in everything() if d["kind"] == "NetworkPolicy"}
    web, daemon = policies["event-archive-webserver"], policies["event-archive-daemon"]
    values = chart.values_of()
    components = [
        deployed["spec"]["template"]["metadata"]["labels"]["component"]
        for deployed in (chart.webserver(values), chart.webserver(values, read_only=True), chart.daemon(values))
    ]
    assert web["podSelector"]["matchExpressions"][0]["values"] == components[:2]
    assert daemon["podSelector"]["matchLabels"] == {"component": components[2]}
    assert daemon["ingress"] == []
    (incoming,) = web["ingress"]
    assert incoming["ports"] == [{"protocol": "TCP", "port": values["dagsterWebserver"]["service"]["port"]}]
    # All of Dagster's pods, and nobody else, may ask the code server.
    (asking,) = policies["event-archive-code-server"]["ingress"][0]["from"]
    assert asking["podSelector"]["matchExpressions"][0]["values"] == components
    for policy in (web, daemon):
        *_, last = policy["egress"]
        assert last["to"] == [{"podSelector": policies["event-archive-code-server"]["podSelector"]}]
    (proxied,) = incoming["from"]
    proxy = policies["event-archive-authentication"]
    assert proxied["podSelector"] == proxy["podSelector"]
    *_, last = proxy["egress"]
    assert last == {"to": [{"podSelector": web["podSelector"]}], "ports": incoming["ports"]}


def test_people_sign_in_in_front_of_the_webserver():
    deployment, service = manifest("oauth2-proxy.yaml", "Deployment"), manifest("oauth2-proxy.yaml", "Service")
    template, pod = deployment["spec"]["template"], pod_of(deployment)
    (container,) = pod["containers"]
    options = dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])
    values = chart.values_of()
    assert options["upstream"] == f"http://dagster-dagster-webserver:{values['dagsterWebserver']['service']['port']}"
    assert options["http-address"].endswith(f":{container['ports'][0]['containerPort']}")
    # Everybody of the tenant would get in without a group.
    assert {"allowed-group", "oidc-issuer-url"} <= options.keys()
    policies = {d["metadata"]["name"]: d["spec"] for d in everything() if d["kind"] == "NetworkPolicy"}
    policy = policies["event-archive-authentication"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert policy["ingress"][0]["ports"][0]["port"] == container["ports"][0]["containerPort"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert problems_of_pod(pod) == []


def test_no_file_holds_a_secret():
    for document in everything():
        if document["kind"] == "Secret":
            assert set(document["stringData"].values()) == {""}


def test_key_vault_fills_the_secret_that_pods_read():
    provider = manifest("secretproviderclass.yaml", "SecretProviderClass")
    objects = {
        yaml.safe_load(entry)["objectName"]
        for entry in yaml.safe_load(provider["spec"]["parameters"]["objects"])["array"]
    }
    for secret in provider["spec"]["secretObjects"]:
        for entry in secret["data"]:
            assert entry["key"] in manifest_of_secret(secret["secretName"])["stringData"]
            assert entry["objectName"] in objects


def manifest_of_secret(name: str) -> Document:
    (found,) = [d for d in everything() if d["kind"] == "Secret" and d["metadata"]["name"] == name]
    return found
