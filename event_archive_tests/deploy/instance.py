"""The instance of the Helm chart, as Dagster reads it, and the run pods of its launcher. No cluster is asked."""

from pathlib import Path

import dagster as dg
import kubernetes
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.ref import InstanceRef
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import construct_dagster_k8s_job

from event_archive_tests.deploy import chart
from event_archive_tests.deploy.manifests import Document

IMAGE = "example.azurecr.io/event-archive:0.1.0"


def reference(values: Document, folder: Path) -> InstanceRef:
    """The instance of the chart, checked by Dagster; a cluster that nobody reaches instead of the pod's own."""
    rendered = chart.dagster_yaml(values)
    rendered["run_launcher"]["config"] |= {
        "load_incluster_config": False,
        "kubeconfig_file": str(folder / "kubeconfig"),
    }
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "nobody"}}],
        "current-context": "none",
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    (folder / "dagster.yaml").write_text(yaml.safe_dump(rendered))
    return InstanceRef.from_dir(str(folder))


def run_pod(instance: InstanceRef) -> Document:
    """The Job that the chart's run launcher makes of a run; by dagster-k8s itself."""
    launcher = instance.run_launcher
    assert isinstance(launcher, K8sRunLauncher)
    repository = RepositoryPythonOrigin(
        executable_path="python",
        code_pointer=ModuleCodePointer("event_archive.definitions", "defs"),
        container_image=IMAGE,
        entry_point=DEFAULT_DAGSTER_ENTRY_POINT,
    )
    run = dg.DagsterRun(job_name="archive_job", job_code_origin=JobPythonOrigin("archive_job", repository))
    context = launcher.get_container_context_for_run(run)
    job = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(job_image=IMAGE, run_launcher=launcher),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run",
        component="run_worker",
        user_defined_k8s_config=context.run_k8s_config,
    )
    document: Document = kubernetes.client.ApiClient().sanitize_for_serialization(job)
    return document
