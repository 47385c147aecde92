"""Which keys the official Helm chart has, as far as our values reach; and values held against them.

The chart's own schema lets a misspelt key pass. Parts of Kubernetes are left to Kubernetes' schema. Not here: what the
chart makes of the values.

The keys are written by hand, since the chart is in no package registry and no copy of its values could be had at the
version of Dagster that is pinned; keys derived from an older copy would refuse ``concurrency``, which ours sets. Its
schema also leaves ``runMonitoring``, ``runRetries`` and what Kubernetes defines open, so that a key misspelt there,
which the tests notice today, would pass.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

import jsonschema
from referencing import Registry, Resource

from event_archive_tests.deploy.manifests import VERSIONS, Document

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
    "httpGet": {"path": str, "port": int},
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
        "service": {"type": str, "port": int, "annotations": _STRINGS},
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
