"""Whatever fails, nothing that Dagster keeps, and so nothing that its UI can show, holds a secret."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from event_archive.config.environment import PipelineSettings
from event_archive.defs import failures
from event_archive.defs.build import build_definitions
from event_archive.postgres import connecting
from event_archive_tests.azurite import Azurite
from event_archive_tests.fixtures.installation import Installation
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.postgres import password_role

pytestmark = pytest.mark.slow

PASSWORD = "pa55w0rd-nobody-may-see"
KEY = base64.b64encode(b"account-key-that-nobody-may-see!").decode()
SIGNATURE = "c2lnbmF0dXJlLW5vYm9keS1tYXktc2Vl"
HOOK = "hook-nobody-may-see"
SECRETS = (PASSWORD, KEY, SIGNATURE, HOOK)


@dataclass(frozen=True)
class Failing:
    """Environments in which a run fails, or not, each with secrets in it."""

    installation: Installation
    azurite: Azurite
    role: str

    def variables(self, kind: str) -> dict[str, str]:
        database = self.installation.database
        good = f"{database.server.dsn(database.name, self.role)} password={PASSWORD}"
        host = database.server.socket_dir
        there = self.azurite.account_url
        return {
            "all is well": {"PG_CONNECTION_STRING": good},
            "a wrong password": {"PG_CONNECTION_STRING": good.replace(PASSWORD, PASSWORD + "!")},
            "a database that is not there": {
                "PG_CONNECTION_STRING": f"postgresql://{self.role}:{PASSWORD}@/nowhere?host={host}"
            },
            "a database out of reach": {"PG_CONNECTION_STRING": f"postgresql://me:{PASSWORD}@127.0.0.1:9/events"},
            "a replica out of reach": {
                "PG_CONNECTION_STRING": good,
                "EXPORT_PG_CONNECTION_STRING": f"postgresql://me:{PASSWORD}@127.0.0.1:9/events",
            },
            "a wrong account key": {
                "PG_CONNECTION_STRING": good,
                "AZURE_STORAGE_CONNECTION_STRING": (
                    f"AccountName={self.azurite.account_name};AccountKey={KEY};BlobEndpoint={there}"
                ),
            },
            "a wrong signature": {
                "PG_CONNECTION_STRING": good,
                "AZURE_STORAGE_CONNECTION_STRING": (
                    f"BlobEndpoint={there};SharedAccessSignature=sv=2021-06-08&ss=b&srt=co&sp=rwl&"
                    f"se=2099-01-01T00:00:00Z&sig={SIGNATURE}"
                ),
            },
            "settings that are wrong": {"PG_CONNECTION_STRING": f"postgresql://me:{PASSWORD}@db@db:5432/x"},
            "a file that is none of ours": {"PG_CONNECTION_STRING": good},
        }[kind] | {"ALERT_WEBHOOK_URL": f"http://127.0.0.1:9/{HOOK}"}


@pytest.fixture
def failing(azure_installation: Installation, azurite: Azurite) -> Iterator[Failing]:
    with password_role(azure_installation.database, PASSWORD) as role:
        yield Failing(azure_installation, azurite, role)


@pytest.mark.parametrize(
    "kind",
    [
        "all is well",
        "a wrong password",
        "a database that is not there",
        "a database out of reach",
        "a replica out of reach",
        "a wrong account key",
        "a wrong signature",
        "settings that are wrong",
        "a file that is none of ours",
    ],
)
def test_no_secret_is_in_dagsters_records_however_a_run_ends(
    failing: Failing,
    kind: str,
    home: Path,
    clean: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    failing.installation.add(2)
    if kind == "a file that is none of ours":
        failing.installation.put(NO_CSV)
    for name, value in failing.variables(kind).items():
        clean.setenv(name, value)
    # Retries of steps would only repeat it, a quarter of a minute each.
    clean.setattr(failures, "RETRY_SECONDS", 0)
    clean.setattr(connecting, "_ATTEMPTS", 1)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        result = (
            build_definitions(PipelineSettings.load())
            .resolve_job_def("archive_job")
            .execute_in_process(partition_key=DAY.isoformat(), instance=instance, raise_on_error=False)
        )
        assert result.success == (kind == "all is well")
        events = [str(entry) for entry in instance.all_logs(result.run_id)]
    kept = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    # What is looked through is what the run left, and a secret in it would be found.
    assert any(result.run_id.encode() in content for content in kept.values())
    assert any("archive_job" in event for event in events)
    said = capfd.readouterr()
    everything = [*kept.values(), *(text.encode() for text in (*events, caplog.text, said.out, said.err))]
    for secret in (*SECRETS, os.environ["PG_CONNECTION_STRING"]):
        assert not any(secret.encode() in content for content in everything), secret
