"""The official Helm chart, as far as our values reach. Here: which keys it has, and what it makes of them.

The chart is in no package registry, so neither it nor Helm can run in tests. ``KEYS`` says which keys its schema and
templates know; the chart itself lets a misspelt one pass. ``dagster_yaml`` and ``code_server`` say what its templates
``configmap-instance.yaml`` and ``deployment-user.yaml`` render. Parts of Kubernetes are left to Kubernetes' schema.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource

from event_archive_tests.deploy.manifests import ROOT, VERSIONS, Document, with_optional_variables

VALUES = ROOT / "deploy" / "helm" / "values.yaml"
RELEASE = "dagster"
NAMESPACE = "events"

_ANY: Document = {}
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def _core(name: str) -> Document:
    return {"$ref": f"kubernetes#/$defs/io.k8s.api.core.v1.{name}"}


_ENVIRONMENT = {"oneOf": [_STRINGS, {"type": "array", "items": _core("EnvVar")}]}
_SECRETS = [{"name": str}]
_IMAGE = {"repository": str, "tag": str, "pullPolicy": ("Always", "IfNotPresent", "Never")}
_PROBE = {
    "initialDelaySeconds": int,
    "periodSeconds": int,
    "timeoutSeconds": int,
    "successThreshold": int,
    "failureThreshold": int,
    "exec": {"command": [str]},
}
_POD = {
    "annotations": _STRINGS,
    "nodeSelector": _STRINGS,
    "affinity": _core("Affinity"),
    "tolerations": [_core("Toleration")],
    "podSecurityContext": _core("PodSecurityContext"),
    "securityContext": _core("SecurityContext"),
    "resources": _core("ResourceRequirements"),
    "livenessProbe": _PROBE,
    "readinessProbe": _PROBE | {"enabled": bool},
    "startupProbe": _PROBE | {"enabled": bool},
    "labels": _STRINGS,
    "schedulerName": str,
    "volumeMounts": [_core("VolumeMount")],
    "volumes": [_core("Volume")],
    "env": _ENVIRONMENT,
    "envConfigMaps": _SECRETS,
    "envSecrets": _SECRETS,
}
_SERVICE_ACCOUNT = {"create": bool, "name": str, "annotations": _STRINGS}
_PURGE = {"purgeAfterDays": {"skipped": int, "success": int, "failure": int, "started": int}}

KEYS: dict[str, Any] = {
    "global": {
        "postgresqlSecretName": str,
        "dagsterHome": str,
        "serviceAccountName": str,
        "celeryConfigSecretName": str,
    },
    "generatePostgresqlPasswordSecret": bool,
    "imagePullSecrets": _SECRETS,
    "rbacEnabled": bool,
    "postgresql": {
        "enabled": bool,
        "image": {"repository": str, "tag": str, "pullPolicy": str},
        "postgresqlHost": str,
        "postgresqlUsername": str,
        "postgresqlPassword": str,
        "postgresqlDatabase": str,
        "postgresqlParams": _ANY,
        "postgresqlScheme": str,
        "service": {"port": int},
    },
    "dagster-user-deployments": {
        "enabled": bool,
        "enableSubchart": bool,
        "imagePullSecrets": _SECRETS,
        "serviceAccount": _SERVICE_ACCOUNT,
        "rbacEnabled": bool,
        "deployments": [
            {
                "name": str,
                "image": _IMAGE,
                "dagsterApiGrpcArgs": [str],
                "codeServerArgs": [str],
                "includeConfigInLaunchedRuns": {"enabled": bool},
                "deploymentNamespace": str,
                "port": int,
                "replicaCount": int,
                "initContainers": [_core("Container")],
                "sidecarContainers": [_core("Container")],
                "deploymentStrategy": {"$ref": "kubernetes#/$defs/io.k8s.api.apps.v1.DeploymentStrategy"},
                **_POD,
            }
        ],
    },
    "runLauncher": {
        "type": ("K8sRunLauncher", "CeleryK8sRunLauncher", "CustomRunLauncher"),
        "config": {
            "k8sRunLauncher": {
                "image": _IMAGE,
                "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
                "jobNamespace": str,
                "loadInclusterConfig": bool,
                "kubeconfigFile": str,
                "envConfigMaps": _SECRETS,
                "envSecrets": _SECRETS,
                "envVars": [str],
                "volumeMounts": [_core("VolumeMount")],
                "volumes": [_core("Volume")],
                "labels": _STRINGS,
                "failPodOnRunFailure": bool,
                "resources": _core("ResourceRequirements"),
                "schedulerName": str,
                "securityContext": _core("SecurityContext"),
                # What these hold is checked on the Job that dagster-k8s makes of them.
                "runK8sConfig": {
                    "containerConfig": _ANY,
                    "podSpecConfig": _ANY,
                    "podTemplateSpecMetadata": _ANY,
                    "jobSpecConfig": _ANY,
                    "jobMetadata": _ANY,
                },
            }
        },
    },
    "dagsterDaemon": {
        **_POD,
        "enabled": bool,
        "image": _IMAGE,
        "heartbeatTolerance": int,
        "deploymentLabels": _STRINGS,
        "runCoordinator": {"enabled": bool, "type": str, "config": _ANY},
        "runMonitoring": {
            "enabled": bool,
            "startTimeoutSeconds": int,
            "cancelTimeoutSeconds": int,
            "pollIntervalSeconds": int,
            "maxRuntimeSeconds": int,
            "maxResumeRunAttempts": int,
            "freeSlotsAfterRunEndSeconds": int,
        },
        "runRetries": {"enabled": bool, "maxRetries": int, "retryOnAssetOrOpFailure": bool},
        "sensors": {"useThreads": bool, "numWorkers": int, "numSubmitWorkers": int},
        "schedules": {"useThreads": bool, "numWorkers": int, "numSubmitWorkers": int},
    },
    "concurrency": {
        "enabled": bool,
        "pools": {"defaultLimit": int, "granularity": ("run", "op"), "opGranularityRunBuffer": int},
        "runs": {"maxConcurrentRuns": int, "tagConcurrencyLimits": _ANY},
    },
    "retention": {"enabled": bool, "schedule": _PURGE, "sensor": _PURGE, "autoMaterialize": _PURGE},
    "dagsterWebserver": {
        **_POD,
        "replicaCount": int,
        "image": _IMAGE,
        "deploymentLabels": _STRINGS,
        "enableReadOnly": bool,
        "pathPrefix": str,
        "logLevel": str,
    },
    "serviceAccount": _SERVICE_ACCOUNT,
    "computeLogManager": {
        "type": ("AzureBlobComputeLogManager", "NoOpComputeLogManager", "CustomComputeLogManager"),
        "config": {
            "azureBlobComputeLogManager": {
                "storageAccount": str,
                "container": str,
                "secretCredential": _ANY,
                "defaultAzureCredential": _ANY,
                "accessKeyOrSasToken": str,
                "localDir": str,
                "prefix": str,
                "uploadInterval": int,
                "showUrlOnly": bool,
            },
            "customComputeLogManager": _ANY,
        },
    },
    "telemetry": {"enabled": bool},
    # Written into dagster.yaml as it stands, which Dagster itself checks.
    "additionalInstanceConfig": _ANY,
}

_TYPES = {str: "string", int: "integer", bool: "boolean"}


def _schema(shape: Any) -> Document:
    """The JSON schema of a shape; a dictionary of shapes has these keys and no others."""
    if isinstance(shape, type):
        return {"type": _TYPES[shape]}
    if isinstance(shape, tuple):
        return {"enum": list(shape)}
    if isinstance(shape, list):
        return {"type": "array", "items": _schema(shape[0])}
    if not shape or {"$ref", "oneOf", "additionalProperties"} & shape.keys():
        return dict(shape)
    properties = {key: _schema(value) for key, value in shape.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


@cache
def _validator() -> Any:
    folder = f"kubernetes-json-schema/v{VERSIONS[-1]}-local-strict/_definitions.json"
    definitions = json.loads((resources.files("kubernetes_validate") / folder).read_text())
    registry: Any = Registry().with_resource("kubernetes", Resource.from_contents(definitions))
    return jsonschema.Draft202012Validator(_schema(KEYS), registry=registry)


def problems_of_values(values: Document) -> list[str]:
    """Keys that the chart does not have, and values of a wrong type, each with its path."""
    return [
        f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}"
        for error in _validator().iter_errors(values)
    ]


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
