"""The Helm values: keys that the chart has, an instance that Dagster accepts, pods that Kubernetes accepts."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.ref import InstanceRef
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._serdes import ConfigurableClassData
from dagster_azure.blob import AzureBlobComputeLogManager

from event_archive_tests.deploy import chart
from event_archive_tests.deploy.chart_keys import problems_of_values
from event_archive_tests.deploy.instance import reference, run_pod
from event_archive_tests.deploy.manifests import ROOT, VERSIONS, pod_of, problems_of_pod, validate

VALUES = chart.values_of()


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstanceRef:
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "as the chart sets it")
    return reference(VALUES, tmp_path)


def test_every_key_is_one_of_the_charts():
    assert problems_of_values(VALUES) == []
    assert problems_of_values(yaml.safe_load(chart.VALUES.read_text())) == []


def test_the_instance_is_that_of_dagster_yaml_where_both_can_say_it():
    ours, theirs = yaml.safe_load((ROOT / "dagster.yaml").read_text()), chart.dagster_yaml(VALUES)
    chart_defaults = {"max_resume_run_attempts": 0, "free_slots_after_run_end_seconds": 0}
    theirs["run_monitoring"] = {
        key: value for key, value in theirs["run_monitoring"].items() if chart_defaults.get(key) != value
    }
    shared = ours.keys() - {"instance_class"}
    assert shared == {"concurrency", "run_queue", "run_retries", "run_monitoring", "retention", "telemetry", "nux"}
    assert {key: theirs[key] for key in shared} == {key: ours[key] for key in shared}


def test_dagster_accepts_the_instance(instance: InstanceRef):
    assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
    assert isinstance(instance.compute_log_manager, AzureBlobComputeLogManager)
    for stored in (instance.run_storage_data, instance.event_storage_data, instance.schedule_storage_data):
        database = checked(stored)["postgres_db"]
        assert database["scheme"] == "postgresql+psycopg2"
        assert database["password"] == "as the chart sets it"


def checked(data: ConfigurableClassData | None) -> dict[str, Any]:
    """The configuration of a class, as the class itself checks it, without making one, which would connect."""
    assert data is not None
    module = __import__(data.module_name, fromlist=[data.class_name])
    result = process_config(getattr(module, data.class_name).config_type(), data.config_dict)
    assert result.success, result.errors
    return dict(result.value or {})


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_the_code_server_and_a_run_pod(version: str, instance: InstanceRef):
    validate(chart.code_server(VALUES), version)
    validate(run_pod(instance), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_restricted_namespace_accepts_the_daemon_and_the_webservers(version: str):
    for deployment in (
        chart.daemon(VALUES),
        chart.webserver(VALUES),
        chart.webserver(VALUES, read_only=True),
    ):
        validate(deployment, version)
        assert problems_of_pod(pod_of(deployment)) == []


def test_the_webserver_is_asked_at_a_port_that_needs_no_privilege():
    given = VALUES["dagsterWebserver"]
    assert given["service"]["port"] == given["readinessProbe"]["httpGet"]["port"] >= 1024
    assert given["enableReadOnly"] is True


def test_a_run_pod_has_the_specifications_resources_and_what_the_code_server_has(instance: InstanceRef):
    job, server = run_pod(instance), chart.code_server(VALUES)
    pod, template = pod_of(job), job["spec"]["template"]["metadata"]
    (container,), (serving,) = pod["containers"], pod_of(server)["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "100m", "memory": "256Mi"},
        "limits": {"cpu": "300m", "memory": "512Mi"},
    }
    set_by_dagster = {"DAGSTER_HOME", "DAGSTER_PG_PASSWORD", "DAGSTER_CURRENT_IMAGE"}
    variables, served = (
        [variable for variable in given["env"] if variable["name"] not in set_by_dagster]
        for given in (container, serving)
    )
    assert variables == served
    assert container["envFrom"] == serving["envFrom"]
    assert pod["serviceAccountName"] == pod_of(server)["serviceAccountName"]
    assert template["labels"]["azure.workload.identity/use"] == "true"
    assert template["labels"]["app.kubernetes.io/component"] == "run_worker"
    assert problems_of_pod(pod) == []


def test_the_code_server_has_more_cpu_than_a_run(instance: InstanceRef):
    server = pod_of(chart.code_server(VALUES))
    assert problems_of_pod(server) == []
    limits = (pod["containers"][0]["resources"]["limits"]["cpu"] for pod in (server, pod_of(run_pod(instance))))
    assert tuple(limits) == ("1", "300m")


def test_a_job_outlives_what_run_monitoring_grants_it(instance: InstanceRef):
    granted = VALUES["dagsterDaemon"]["runMonitoring"]["maxRuntimeSeconds"]
    assert run_pod(instance)["spec"]["activeDeadlineSeconds"] > granted


def test_ticks_have_five_minutes_and_the_identity_is_everywhere():
    for part in ("dagsterDaemon", "dagsterWebserver"):
        assert VALUES[part]["env"] == {
            "DAGSTER_SCHEDULE_GRPC_TIMEOUT_SECONDS": "300",
            "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "300",
        }
        assert VALUES[part]["labels"] == {"azure.workload.identity/use": "true"}
    assert "azure.workload.identity/client-id" in VALUES["serviceAccount"]["annotations"]
    assert VALUES["postgresql"]["enabled"] is False
    assert VALUES["telemetry"] == {"enabled": False}
