"""The official Helm chart: what it makes of our values.

The chart is in no package registry, so its templates cannot run here. ``dagster_yaml``, ``code_server``, ``daemon`` and
``webserver`` say what its templates ``configmap-instance.yaml``, ``deployment-user.yaml``, ``deployment-daemon.yaml``
and ``deployment-webserver.yaml`` render, in the parts that our values set.
"""

import yaml

from event_archive_tests.deploy.manifests import ROOT, Document, with_optional_variables

VALUES = ROOT / "deploy" / "helm" / "values.yaml"
RELEASE = "dagster"
NAMESPACE = "events"


def values_of(text: str | None = None) -> Document:
    """The values, with their optional variables in force."""
    loaded: Document = yaml.safe_load(with_optional_variables(VALUES.read_text() if text is None else text))
    return loaded


def dagster_yaml(values: Document) -> Document:
    """The ``dagster.yaml`` that the chart renders and mounts into every pod.

    Raises:
        KeyError: a key is absent that the rendering needs and the chart has no default for.
    """
    postgresql, daemon = values["postgresql"], values["dagsterDaemon"]
    database = {
        "postgres_db": {
            "username": postgresql["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": postgresql["postgresqlHost"],
            "db_name": postgresql["postgresqlDatabase"],
            "port": postgresql["service"]["port"],
            "params": postgresql.get("postgresqlParams", {}),
            **({"scheme": postgresql["postgresqlScheme"]} if postgresql.get("postgresqlScheme") else {}),
        }
    }
    rendered: Document = {
        "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
        "schedule_storage": _class("dagster_postgres.schedule_storage", "PostgresScheduleStorage", database),
        "run_storage": _class("dagster_postgres.run_storage", "PostgresRunStorage", database),
        "event_log_storage": _class("dagster_postgres.event_log", "PostgresEventLogStorage", database),
        "run_launcher": _class("dagster_k8s", "K8sRunLauncher", _run_launcher(values)),
        "compute_logs": _class(
            "dagster_azure.blob.compute_log_manager",
            "AzureBlobComputeLogManager",
            _snake_case(values["computeLogManager"]["config"]["azureBlobComputeLogManager"]),
        ),
        "run_monitoring": {"max_resume_run_attempts": 0, "free_slots_after_run_end_seconds": 0}
        | _snake_case(daemon["runMonitoring"]),
        "run_retries": _snake_case(daemon["runRetries"]),
        "sensors": {"use_threads": True, "num_workers": 4},
        "schedules": {"use_threads": True, "num_workers": 4},
        "telemetry": values["telemetry"],
        "retention": {
            kind: {"purge_after_days": values["retention"][kind]["purgeAfterDays"]} for kind in ("schedule", "sensor")
        },
        "concurrency": {
            part: _snake_case(values["concurrency"][part])
            for part in ("pools", "runs")
            if values["concurrency"]["enabled"]
        },
    }
    if daemon["runCoordinator"]["enabled"]:
        # As the chart did before it knew `concurrency`; Dagster refuses the two together.
        rendered["run_coordinator"] = _class(
            "dagster.core.run_coordinator", "QueuedRunCoordinator", {"max_concurrent_runs": -1}
        )
    rendered.update(values.get("additionalInstanceConfig", {}))
    return rendered


def _class(module: str, name: str, config: Document) -> Document:
    return {"module": module, "class": name, "config": config}


def _snake_case(mapping: Document) -> Document:
    return {"".join(f"_{c.lower()}" if c.isupper() else c for c in key): value for key, value in mapping.items()}


def _run_launcher(values: Document) -> Document:
    given = values["runLauncher"]["config"]["k8sRunLauncher"]
    passed = ("volumeMounts", "volumes", "labels", "resources", "securityContext", "envVars")
    return {
        "load_incluster_config": True,
        "job_namespace": NAMESPACE,
        "image_pull_policy": given["imagePullPolicy"],
        "service_account_name": RELEASE,
        "dagster_home": values["global"]["dagsterHome"],
        "instance_config_map": f"{RELEASE}-instance",
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "env_secrets": [secret["name"] for secret in given.get("envSecrets", [])],
        **_snake_case({key: given[key] for key in passed if key in given}),
        "run_k8s_config": _snake_case(given.get("runK8sConfig", {})),
    }


def code_server(values: Document) -> Document:
    """The Deployment that the chart renders for the one user deployment."""
    subchart = values["dagster-user-deployments"]
    (given,) = subchart["deployments"]
    labels = {"component": "user-deployments", "deployment": given["name"], **given.get("labels", {})}
    image = f"{given['image']['repository']}:{given['image']['tag']}"
    check = {"exec": {"command": ["dagster", "api", "grpc-health-check", "-p", str(given["port"])]}}
    probe = {key: value for key, value in given["readinessProbe"].items() if key != "enabled"}
    password = {"secretKeyRef": {"name": values["global"]["postgresqlSecretName"], "key": "postgresql-password"}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{RELEASE}-user-deployments-{given['name']}", "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"deployment": given["name"]}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": subchart["serviceAccount"]["name"],
                    "securityContext": given["podSecurityContext"],
                    "volumes": given["volumes"],
                    "containers": [
                        {
                            "name": "dagster-user-deployments",
                            "image": image,
                            "imagePullPolicy": given["image"]["pullPolicy"],
                            "args": [
                                *("dagster", "api", "grpc", "-h", "0.0.0.0", "-p", str(given["port"])),
                                *given["dagsterApiGrpcArgs"],
                            ],
                            "env": [
                                {"name": "DAGSTER_CURRENT_IMAGE", "value": image},
                                {"name": "DAGSTER_PG_PASSWORD", "valueFrom": password},
                                *given["env"],
                            ],
                            "envFrom": [{"secretRef": secret} for secret in given["envSecrets"]],
                            "resources": given["resources"],
                            "readinessProbe": check | probe,
                            "securityContext": given["securityContext"],
                            "volumeMounts": given["volumeMounts"],
                        }
                    ],
                },
            },
        },
    }


def daemon(values: Document) -> Document:
    """The Deployment of the daemon."""
    return _of_dagster(values, "dagsterDaemon", "dagster-daemon", "dagster-daemon run")


def webserver(values: Document, *, read_only: bool = False) -> Document:
    """The Deployment of the webserver, or of the one that launches nothing."""
    port = values["dagsterWebserver"]["service"]["port"]
    component = "dagster-webserver-read-only" if read_only else "dagster-webserver"
    command = f"dagster-webserver -h 0.0.0.0 -p {port}" + (" --read-only" if read_only else "")
    return _of_dagster(values, "dagsterWebserver", component, command)


def _of_dagster(values: Document, part: str, component: str, command: str) -> Document:
    given = values[part]
    labels = {"component": component, **given["labels"]}
    # Both wait for others first, in containers with the security context of the one that serves.
    waiting = [
        {"name": name, "image": image, "command": ["sh", "-c", "until …"], "securityContext": given["securityContext"]}
        for name, image in (("check-db-ready", "postgres"), ("init-user-deployment-event-archive", "busybox"))
    ]
    container = {
        "name": "dagster",
        "image": "dagster-celery-k8s",
        "command": ["/bin/bash", "-c", command],
        "env": [{"name": name, "value": value} for name, value in given["env"].items()],
        "resources": given["resources"],
        "securityContext": given["securityContext"],
        "volumeMounts": given["volumeMounts"],
        **({"readinessProbe": given["readinessProbe"]} if "readinessProbe" in given else {}),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": component, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"component": component}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": RELEASE,
                    "securityContext": given["podSecurityContext"],
                    "initContainers": waiting,
                    "containers": [container],
                    "volumes": given["volumes"],
                },
            },
        },
    }
