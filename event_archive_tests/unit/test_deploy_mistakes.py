"""Mistakes made on purpose in the deployment's files: what notices each, and what notices none.

Where nothing does, test_deploy_kubernetes.py asserts the very value; a host that is not there shows in a cluster alone.
"""

from dataclasses import dataclass
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from dagster import DagsterInvalidConfigError

from event_archive_tests.deploy import chart
from event_archive_tests.deploy.chart_keys import problems_of_values
from event_archive_tests.deploy.instance import reference, run_pod
from event_archive_tests.deploy.manifests import (
    MANIFESTS,
    VERSIONS,
    Document,
    pod_of,
    problems_of_pod,
    validate,
    with_optional_variables,
)
from event_archive_tests.unit.test_deploy_variables import OF_ANY_POD, SECRETS

pytestmark = pytest.mark.slow

CHART, DAGSTER, LAUNCHER = "the chart's keys", "Dagster's check", "dagster-k8s"
KUBERNETES, PODS, VARIABLES = "Kubernetes' schema", "our rules for pods", "the contract's variables"


@dataclass(frozen=True)
class Mistake:
    """What is written for what; ``by`` names all that notice."""

    what: str
    right: str
    wrong: str
    by: frozenset[str]


def mistake(what: str, right: str, wrong: str, *by: str) -> Mistake:
    return Mistake(what, right, wrong, frozenset(by))


IN_THE_VALUES = [
    mistake("a misspelt key", "  runRetries:", "  runRetrys:", CHART),
    mistake("a misspelt key of Kubernetes", "allowPrivilege", "alowPrivilege", CHART, LAUNCHER, KUBERNETES, PODS),
    mistake("a misspelt key of the job", "ttlSecondsAfterFinished", "ttlSecondsAfterFinish", LAUNCHER),
    mistake("a word for a number", "maxConcurrentRuns: 4", "maxConcurrentRuns: four", CHART, DAGSTER),
    mistake("a number for a word", "value: https://example.blob.core.windows.net", "value: 31", CHART, KUBERNETES),
    mistake("an unknown choice", "granularity: run\n", "granularity: runs\n", CHART, DAGSTER),
    mistake(
        "two limits of one thing", "runCoordinator:\n    enabled: false", "runCoordinator:\n    enabled: true", DAGSTER
    ),
    mistake("a unit that is none", "memory: 512Mi", "memory: 512mb", PODS),
    mistake("more requested than allowed", "memory: 256Mi", "memory: 2Gi", PODS),
    mistake("root", "runAsNonRoot: true", "runAsNonRoot: false", PODS),
    mistake(
        "a mount without its volume",
        "- name: datasets\n          mountPath",
        "- name: dataset\n          mountPath",
        PODS,
    ),
    mistake("a misspelt variable", "- name: EVENT_TABLE", "- name: EVENT_TABEL", VARIABLES),
    mistake("a variable left out", '        # - name: DRY_RUN\n        #   value: "false"\n', "", VARIABLES),
    mistake(
        "a variable of the API left out",
        '        # - name: API_START\n        #   value: "2024-01-31"\n',
        "",
        VARIABLES,
    ),
    mistake(
        "a variable of log files left out", "        # - name: LOGS_TIMEZONE\n        #   value: UTC\n", "", VARIABLES
    ),
    mistake("a comment that is no variable", "# - name: DRY_RUN", "#- name: DRY_RUN", VARIABLES),
    mistake("a host that is not there", "postgresqlHost: example", "postgresqlHost: exmaple"),
]
IN_THE_CRONJOB = [
    mistake("another version's kind", "apiVersion: batch/v1", "apiVersion: batch/v1beta1", KUBERNETES),
    mistake("a misspelt key", "schedule:", "schedul:", KUBERNETES),
    mistake("a word for a number", "backoffLimit: 2", "backoffLimit: two", KUBERNETES),
    mistake("a number for a word", 'value: "5432"', "value: 5432", KUBERNETES),
    mistake("an unknown choice", "restartPolicy: Never", "restartPolicy: Sometimes"),
    mistake("a time that is none", '"0 2 * * *"', '"0 25 * * *"'),
    mistake("a zone that is none", "timeZone: Etc/UTC", "timeZone: Etc/UCT1"),
    mistake("a unit that is none", "cpu: 300m", "cpu: 300mm", PODS),
    mistake("a writable root file system", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", PODS),
    mistake("a variable set twice", "- name: ARCHIVE_FOLDER", "- name: RUN_BUDGET", PODS),
    mistake(
        "a volume that is none",
        "        - name: tmp\n              emptyDir",
        "        - name: temp\n              emptyDir",
        PODS,
    ),
]


IN_THE_DEPLOYMENT = [
    mistake("a misspelt probe", "livenessProbe:", "livelinessProbe:", KUBERNETES),
    mistake("a word for a number", "periodSeconds: 30", "periodSeconds: often", KUBERNETES),
    mistake("a port by a word", "containerPort: 9090", "containerPort: http", KUBERNETES),
    mistake("root", "runAsNonRoot: true", "runAsNonRoot: false", PODS),
    mistake("more requested than allowed", "memory: 256Mi", "memory: 1Gi", PODS),
    mistake("an unknown spread", "ScheduleAnyway", "ScheduleSomehow"),
]


@pytest.mark.parametrize("made", IN_THE_VALUES, ids=lambda made: made.what)
def test_a_mistake_in_the_values_is_noticed(made: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "as the chart sets it")
    assert noticing_values(chart.VALUES.read_text(), tmp_path) == set()
    assert noticing_values(replaced(chart.VALUES.read_text(), made), tmp_path) == made.by


@pytest.mark.parametrize("made", IN_THE_CRONJOB, ids=lambda made: made.what)
def test_a_mistake_in_the_cronjob_is_noticed(made: Mistake):
    text = (MANIFESTS / "cronjob.yaml").read_text()
    assert noticing_pods([yaml.safe_load(with_optional_variables(text))]) == set()
    assert noticing_pods([yaml.safe_load(with_optional_variables(replaced(text, made)))]) == made.by


@pytest.mark.parametrize("made", IN_THE_DEPLOYMENT, ids=lambda made: made.what)
def test_a_mistake_in_the_deployment_is_noticed(made: Mistake):
    text = (MANIFESTS / "deployment-ingest-stream.yaml").read_text().partition("\n---\n")[0]
    assert noticing_pods([yaml.safe_load(with_optional_variables(text))]) == set()
    assert noticing_pods([yaml.safe_load(with_optional_variables(replaced(text, made)))]) == made.by


def replaced(text: str, made: Mistake) -> str:
    assert made.right in text
    return text.replace(made.right, made.wrong)


def noticing_values(text: str, folder: Path) -> set[str]:
    values = chart.values_of(text)
    found = {CHART} if problems_of_values(values) else set()
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    if {variable["name"] for variable in deployment["env"]} != OF_ANY_POD - SECRETS:
        found.add(VARIABLES)
    pods = [chart.code_server(values), chart.daemon(values), chart.webserver(values)]
    try:
        pods.append(run_pod(reference(values, folder)))
    except DagsterInvalidConfigError:
        found.add(DAGSTER)
    except KeyError:
        # The chart itself would go on with its default.
        pass
    except Exception as error:
        if "Unexpected keys in model class" not in str(error):
            raise
        found.add(LAUNCHER)
    return found | noticing_pods(pods)


def noticing_pods(pods: list[Document]) -> set[str]:
    found = set()
    for pod in pods:
        try:
            validate(pod, VERSIONS[-1])
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError):
            found.add(KUBERNETES)
        try:
            if problems_of_pod(pod_of(pod)):
                found.add(PODS)
        except AssertionError:
            found.add(PODS)
    return found
