"""Kubernetes manifests as the tests read them. Here: files, their optional lines, schemas. Not here: the Helm chart."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.30", kubernetes_validate.latest_version())

Document = dict[str, Any]

_OPTIONAL_LINE = re.compile(r"^( *)# (- name: [A-Z][A-Z0-9_]*|  value: \S.*)$", re.MULTILINE)
# Kubernetes' grammar of quantities; its JSON schema takes any string.
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_UNITS = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def with_optional_variables(text: str) -> str:
    """The text with its commented ``- name:`` and ``value:`` lines in force."""
    return _OPTIONAL_LINE.sub(r"\1\2", text)


def documents(text: str) -> list[Document]:
    """The documents of a manifest."""
    return [document for document in yaml.safe_load_all(text) if document]


def manifest(name: str, kind: str) -> Document:
    """The one document of this kind in a file, with its optional variables in force."""
    text = with_optional_variables((MANIFESTS / name).read_text())
    (found,) = [document for document in documents(text) if document["kind"] == kind]
    return found


def validate(document: Document, version: str) -> None:
    """Holds a document against Kubernetes' schema of a version; unknown keys are errors.

    Raises:
        kubernetes_validate.ValidationError: the document does not fit.
        kubernetes_validate.SchemaNotFoundError: there is no such kind in this version.
    """
    kubernetes_validate.validate(document, version, strict=True)


def quantity(text: object) -> float:
    """What a resource quantity amounts to, in cores or bytes."""
    match = _QUANTITY.fullmatch(str(text))
    assert match, f"{text!r} is no quantity of Kubernetes"
    return float(match[1]) * _UNITS.get(match[2], 1)


def pod_of(document: Document) -> Document:
    """The pod's specification in a Deployment, Job or CronJob."""
    spec = document["spec"]
    template: Document = spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
    pod: Document = template["spec"]
    return pod


def problems_of_pod(pod: Document) -> list[str]:
    """What a cluster with the restricted Pod Security Standard, or a full node, would mind and no schema does."""
    problems = []
    if not pod.get("securityContext", {}).get("runAsNonRoot"):
        problems.append("may run as root")
    if pod.get("securityContext", {}).get("seccompProfile") != {"type": "RuntimeDefault"}:
        problems.append("no seccomp profile")
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    for container in pod["containers"]:
        security = container.get("securityContext", {})
        if security.get("allowPrivilegeEscalation") is not False or not security.get("readOnlyRootFilesystem"):
            problems.append("privileges or a writable root file system")
        if security.get("capabilities") != {"drop": ["ALL"]}:
            problems.append("capabilities")
        mounts = {mount["name"]: mount["mountPath"] for mount in container.get("volumeMounts", [])}
        if "/tmp" not in mounts.values():
            problems.append("/tmp is not writable")
        if not mounts.keys() <= volumes:
            problems.append(f"mounts without a volume: {mounts.keys() - volumes}")
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        problems += [
            f"{name}: requests {requests[name]} of at most {limits[name]}"
            for name in ("cpu", "memory")
            if quantity(requests[name]) > quantity(limits[name])
        ]
        names = [variable["name"] for variable in container.get("env", [])]
        problems += [f"{name} is set twice" for name in sorted(set(names)) if names.count(name) > 1]
    return problems
