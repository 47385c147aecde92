"""What the doctor says of lakes and clocks, whole and broken."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerClient, generate_container_sas

from event_archive.doctor import clocks, lakes
from event_archive.lake.local.folder import LocalLake
from event_archive.lake.protocol import StoredFile
from event_archive_tests.azurite import Azurite
from event_archive_tests.azurite.proxy import Fault, faulty, request
from event_archive_tests.fixtures.doctor import ACCOUNT_KEY, files, findings, wrong
from event_archive_tests.fixtures.installation import Commands, Installation

# The lake


def test_a_lake_that_is_out_of_reach(
    healthy_on_azure: Installation, azurite: Azurite, command: Commands, closed_port: int, clean: pytest.MonkeyPatch
):
    clean.setattr(lakes, "_PATIENCE_SECONDS", 0.5)
    there = azurite.account_url.split("/")[2]
    elsewhere = azurite.connection_string.replace(there, f"127.0.0.1:{closed_port}")
    started = time.monotonic()
    done = command("doctor", "--json", AZURE_STORAGE_CONNECTION_STRING=elsewhere)
    assert time.monotonic() - started < 10
    assert azurite.account_key not in done.said
    found = findings(done, 1)
    assert wrong(found) == {"lake": "bad"}
    assert "the Blob service did not answer, or broke off (Connection refused)" in found["lake"].message
    assert found["lake_write"].status == found["lake_delete"].status == found["lake_store"].status == "skipped"
    assert found["clock"].message == "this machine, PostgreSQL: within 5 s of one another"


def test_a_wrong_account_key_still_tells_the_time(healthy_on_azure: Installation, azurite: Azurite, command: Commands):
    wrong_key = azurite.connection_string.replace(azurite.account_key, ACCOUNT_KEY)
    found = findings(command("doctor", "--json", AZURE_STORAGE_CONNECTION_STRING=wrong_key), 1)
    assert wrong(found) == {"lake": "bad"}
    assert "the Blob service refuses with 403" in found["lake"].message
    assert "the Blob service" in found["clock"].message


def test_files_of_the_table_under_another_prefix_are_told_while_its_own_place_is_empty(
    healthy_locally: Installation, command: Commands
):
    healthy_locally.add(1)
    assert command("run", EVENT_FILE_PREFIX="lines").code == 0
    found = findings(command("doctor", "--json", EVENT_FILE_PREFIX="moved"), 0)
    assert wrong(found) == {"lake_owner": "warning"}
    assert "To go on with those files, set EVENT_FILE_PREFIX to lines." in found["lake_owner"].message
    healthy_locally.add(1)
    assert command("run", EVENT_FILE_PREFIX="moved").code == 0
    assert not wrong(findings(command("doctor", "--json", EVENT_FILE_PREFIX="moved"), 0))


def test_a_marker_that_no_run_can_read_is_bad(healthy_on_azure: Installation, azurite: Azurite, command: Commands):
    healthy_on_azure.add(1)
    assert command("run").code == 0
    with ContainerClient.from_connection_string(azurite.connection_string, "archive") as container:
        container.get_blob_client("titan-pulse-event-archive/_events.source.json").set_standard_blob_tier("Archive")
    found = findings(command("doctor", "--json"), 1)
    assert wrong(found) == {"lake_owner": "bad"}
    assert "_events.source.json" in found["lake_owner"].message
    assert "BlobArchived. It is in the archive tier." in found["lake_owner"].message


def test_a_server_that_a_run_would_make_the_owner_is_told_before(healthy_locally: Installation, command: Commands):
    healthy_locally.add(1)
    assert command("run").code == 0
    lake = healthy_locally.lake
    assert isinstance(lake, LocalLake)
    marker = lake._root / "titan-pulse-event-archive" / "_events.source.json"
    marker.write_text(marker.read_text().replace('"timeline": 1', '"timeline": 0'))
    found = findings(command("doctor", "--json"), 0)
    assert wrong(found) == {"lake_owner": "warning"}
    assert "last used on timeline 0; this server is on 1, so it was promoted or restored" in found["lake_owner"].message


def test_a_marker_that_is_a_folder_is_bad(healthy_locally: Installation, command: Commands):
    healthy_locally.add(1)
    lake = healthy_locally.lake
    assert isinstance(lake, LocalLake)
    (lake._root / "titan-pulse-event-archive" / "_events.source.json").mkdir(parents=True)
    assert wrong(findings(command("doctor", "--json"), 1)) == {"lake_owner": "bad"}
    assert command("run").code == 1


def signed(azurite: Azurite, permission: str) -> str:
    until = datetime.now(UTC) + timedelta(hours=1)
    signature = generate_container_sas(
        azurite.account_name, "archive", azurite.account_key, permission=permission, expiry=until
    )
    return f"BlobEndpoint={azurite.account_url};SharedAccessSignature={signature}"


def test_a_signature_for_just_what_is_needed(healthy_on_azure: Installation, azurite: Azurite, command: Commands):
    """It may not delete, so the probe stays and is named; it is no day's file."""
    connection_string = signed(azurite, "rcwl")
    found = findings(command("doctor", "--json", AZURE_STORAGE_CONNECTION_STRING=connection_string), 1)
    assert wrong(found) == {"lake_write": "bad"}
    assert "404 ContainerNotFound. Create the container" in found["lake_write"].message
    with ContainerClient.from_connection_string(azurite.connection_string, "archive") as container:
        container.create_container()
    found = findings(command("doctor", "--json", AZURE_STORAGE_CONNECTION_STRING=connection_string), 0)
    assert wrong(found) == {"lake_delete": "warning"}
    (left,) = files(healthy_on_azure)
    assert left in found["lake_delete"].remedy
    assert "rcwl" not in found["lake_delete"].message, "it has these"
    assert healthy_on_azure.dataset.day_of(left) is None
    assert findings(command("doctor", "--json"), 0)["lake"].message.endswith(": 0 files of days")
    assert "There is no file events_YYYY-MM-DD.csv to verify in http" in command("verify").stderr


@pytest.mark.parametrize(("permission", "check"), [("rl", "lake_write"), ("rcw", "lake"), ("cwl", "lake")])
def test_a_signature_that_permits_too_little(
    healthy_on_azure: Installation, azurite: Azurite, command: Commands, permission: str, check: str
):
    with ContainerClient.from_connection_string(azurite.connection_string, "archive") as container:
        container.create_container()
    found = findings(command("doctor", "--json", AZURE_STORAGE_CONNECTION_STRING=signed(azurite, permission)), 1)
    assert wrong(found)[check] == "bad"
    assert "(rcwl)" in found[check].message


def test_a_folder_that_is_a_file(healthy_locally: Installation, command: Commands, tmp_path: Path):
    (tmp_path / "taken").touch()
    found = findings(command("doctor", "--json", ARCHIVE_LOCAL_PATH=str(tmp_path / "taken")), 1)
    assert wrong(found) == {"lake": "bad"}


def test_a_folder_in_which_nothing_can_be_made(healthy_locally: Installation, command: Commands):
    found = findings(command("doctor", "--json", ARCHIVE_LOCAL_PATH="/proc"), 1)
    assert wrong(found)["lake_write"] == "bad"
    assert "Check ARCHIVE_LOCAL_PATH, the folder's permissions and free space" in found["lake_write"].message


def test_a_folder_that_cannot_be_made_is_no_bug_of_the_doctors(healthy_locally: Installation, command: Commands):
    found = findings(command("doctor", "--json", ARCHIVE_LOCAL_PATH="/proc/nowhere"), 1)
    assert wrong(found) == {"lake_write": "bad"}
    assert found["lake_store"].status == "skipped"


def test_a_folder_that_is_nearly_full(healthy_locally: Installation, command: Commands, clean: pytest.MonkeyPatch):
    clean.setattr(lakes, "LEAST_FREE_BYTES", 10**18)
    assert wrong(findings(command("doctor", "--json"), 0)) == {"lake_store": "warning"}


class Careless(LocalLake):
    """A lake that heeds no condition."""

    def write(self, path: str, *, replaces: StoredFile | None, append: bool = False) -> Any:
        return super().write(path, replaces=self.stat(path), append=append)


def test_a_lake_that_heeds_no_condition_is_no_lake(tmp_path: Path):
    found = lakes._write(Careless(tmp_path), "folder/probe")
    assert found.status == "bad"
    assert "though its condition" in found.message


# Clocks


@pytest.mark.parametrize(("seconds", "status"), [(10, "warning"), (-600, "bad")])
def test_a_server_whose_clock_is_off(healthy: Installation, command: Commands, seconds: int, status: str):
    database = healthy.database
    database.execute(
        f"""CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql
        AS 'SELECT pg_catalog.timeofday()::timestamptz + make_interval(secs => {seconds})'"""
    )
    found = findings(command("doctor", "--json"), 1 if status == "bad" else 0)
    assert wrong(found) == {"clock": status}
    whose = "this machine" if isinstance(healthy.lake, LocalLake) else "the others"
    words = "10 s ahead of" if seconds == 10 else "600 s behind"
    assert found["clock"].message == f"PostgreSQL is {words} {whose}"


def test_a_blob_service_whose_clock_is_off(healthy_on_azure: Installation, azurite: Azurite, command: Commands):
    headers = {"x-ms-error-code": "BlobNotFound", "Date": format_datetime(datetime.now(UTC) - timedelta(hours=1), True)}
    with faulty(azurite) as proxy:
        proxy.faults.append(Fault(request("HEAD", ".probe"), status=404, headers=headers))
        connection_string = proxy.service.connection_string
        found = findings(command("doctor", "--json", AZURE_STORAGE_CONNECTION_STRING=connection_string), 1)
    assert wrong(found) == {"clock": "bad"}
    assert found["clock"].message.startswith("the Blob service is 3,")
    assert found["clock"].message.endswith(" s behind the others")


@pytest.mark.slow
def test_what_is_no_blob_service_is_told_from_one(healthy_on_azure: Installation, azurite: Azurite, command: Commands):
    with faulty(azurite) as proxy:
        date = {"Date": format_datetime(datetime.now(UTC) - timedelta(hours=1), True)}
        proxy.faults.append(Fault(request("HEAD", ".probe"), status=404, headers=date, again=True))
        connection_string = proxy.service.connection_string
        found = findings(command("doctor", "--json", AZURE_STORAGE_CONNECTION_STRING=connection_string), 1)
    assert wrong(found) == {"lake": "bad"}
    assert "what answers is no Blob service" in found["lake"].message
    assert found["clock"].message.startswith("this machine, PostgreSQL: within")


@pytest.mark.parametrize(("seconds", "counts"), [(0.0, True), (2.5, False)])
def test_an_answer_that_took_long_tells_no_clock(
    healthy_on_azure: Installation, azurite: Azurite, command: Commands, seconds: float, counts: bool
):
    """Nobody knows when in that time it was made."""
    with faulty(azurite) as proxy:
        proxy.faults.append(Fault(request("HEAD", ".probe"), delay_seconds=seconds))
        connection_string = proxy.service.connection_string
        found = findings(command("doctor", "--json", AZURE_STORAGE_CONNECTION_STRING=connection_string), 0)
    assert ("the Blob service" in found["clock"].message) == counts


@pytest.mark.parametrize(
    ("ahead", "message"),
    [
        ({"PostgreSQL": 4.9, "the Blob service": -0.1}, "within 5 s of one another"),
        ({"PostgreSQL": 60.0, "the Blob service": 61.0}, "this machine is 60 s behind the others"),
        ({"PostgreSQL": 0.5, "the Blob service": -40.0}, "the Blob service is 40 s behind the others"),
        ({"PostgreSQL": 4.8, "the Blob service": -4.8}, "PostgreSQL is 10 s ahead of the Blob service"),
        ({"PostgreSQL": 2.4, "the Blob service": 5.1}, "the Blob service is 5 s ahead of this machine"),
        (
            {"PostgreSQL": 8.0, "the Blob service": -8.0},
            "PostgreSQL is 8 s ahead of this machine; ",
        ),
    ],
)
def test_of_three_clocks_the_two_that_agree_are_right(ahead: dict[str, float], message: str):
    assert message in clocks.compare(ahead).message


def test_clocks_are_as_far_apart_as_the_first_and_the_last_of_them():
    found = clocks.compare({"PostgreSQL": 290.0, "the Blob service": -290.0})
    assert (found.status, "the Blob service is 290 s behind this machine" in found.message) == ("bad", True)
