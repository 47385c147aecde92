"""The Terraform module and the lifecycle rule: they parse, and name what the manifests and the values name."""

import json
from typing import Any

import hcl2
import pytest

from event_archive.config.environment import InstanceSettings, PipelineSettings, Settings
from event_archive_tests.deploy import chart
from event_archive_tests.deploy.manifests import ROOT, manifest

FOLDER = ROOT / "deploy" / "terraform"
RULE = json.loads((ROOT / "deploy" / "azure" / "lifecycle.json").read_text())["rules"][0]
LAKE = f"{Settings.model_fields['azure_storage_container'].default}/{PipelineSettings().dataset.folder}/"


def bare(node: Any) -> Any:
    """What the parser returns, texts without their quotation marks."""
    if isinstance(node, dict):
        return {bare(key): bare(value) for key, value in node.items()}
    if isinstance(node, list):
        return [bare(child) for child in node]
    return node.removeprefix('"').removesuffix('"') if isinstance(node, str) else node


def parsed(name: str) -> dict[str, Any]:
    with (FOLDER / name).open() as file:
        document: dict[str, Any] = bare(hcl2.load(file))
    return document


def resources() -> dict[str, dict[str, Any]]:
    return {
        f"{kind}.{name}": body
        for block in parsed("main.tf")["resource"]
        for kind, named in block.items()
        if isinstance(named, dict)
        for name, body in named.items()
        if isinstance(body, dict)
    }


@pytest.mark.parametrize("name", ["main.tf", "variables.tf", "outputs.tf"])
def test_a_file_of_the_module_parses(name: str):
    assert parsed(name)


def test_the_module_trusts_the_service_accounts_of_the_pods():
    (names,) = parsed("main.tf")["locals"]
    runs = manifest("serviceaccount.yaml", "ServiceAccount")["metadata"]["name"]
    assert names["service_accounts"] == f'${{toset(["{runs}", "{chart.RELEASE}"])}}'
    variables = {name: body for block in parsed("variables.tf")["variable"] for name, body in block.items()}
    assert variables["namespace"]["default"] == chart.NAMESPACE
    subject = resources()["azurerm_federated_identity_credential.pipeline"]["subject"]
    assert subject == "system:serviceaccount:${var.namespace}:${each.key}"


def test_the_module_makes_the_containers_that_are_written_to():
    (names,) = parsed("main.tf")["locals"]
    containers = [
        Settings.model_fields["azure_storage_container"].default,
        InstanceSettings.model_fields["dagster_logs_container"].default,
    ]
    (logs,) = chart.values_of()["computeLogManager"]["config"].values()
    assert logs["container"] == containers[1]
    assert names["containers"] == f"${{toset({json.dumps(containers)})}}"


def test_files_move_to_the_cool_tier_and_are_never_deleted_or_archived():
    assert RULE["definition"]["filters"]["prefixMatch"] == [LAKE]
    assert RULE["definition"]["actions"]["baseBlob"] == {"tierToCool": {"daysAfterModificationGreaterThan": 30}}
    (rule,) = resources()["azurerm_storage_management_policy.lake"]["rule"]
    (filters,), (actions,) = rule["filters"], rule["actions"]
    assert filters["prefix_match"] == [LAKE]
    (tiers,) = actions["base_blob"]
    assert {name for name in tiers if not name.startswith("__")} == {
        "tier_to_cool_after_days_since_modification_greater_than"
    }


def test_the_module_grants_what_the_page_grants():
    page = (ROOT / "docs/howto/aks.md").read_text()
    found = resources()
    table = found["postgresql_grant.table"]
    assert f'GRANT {", ".join(table["privileges"])} ON "Event"' in page
    assert "TEMPORARY" in found["postgresql_grant.temporary"]["privileges"]
    for name in ("files", "links", "pull"):
        assert found[f"azurerm_role_assignment.{name}"]["role_definition_name"] in page
