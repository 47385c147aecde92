"""What people see where the lake or a file in it is wrong: one message, an exit code, nothing lost."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient, generate_container_sas

from event_archive.lake.azure import client
from event_archive.lake.azure.retry import BoundedRetry
from event_archive_tests.azurite import Azurite
from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.telling import ACCOUNT_KEY, told

pytestmark = pytest.mark.slow


def test_a_lake_that_is_out_of_reach(
    azure_installation: Installation, azurite: Azurite, command: Commands, closed_port: int, clean: pytest.MonkeyPatch
):
    azure_installation.add(1)
    clean.setattr(client, "BoundedRetry", lambda _seconds: BoundedRetry(0.5))
    there = azurite.account_url.split("/")[2]
    connection_string = azurite.connection_string.replace(there, f"127.0.0.1:{closed_port}")
    done = command("run", AZURE_STORAGE_CONNECTION_STRING=connection_string)
    message = told(done, 1)
    assert "/archive: the Blob service did not answer, or broke off (Connection refused)" in message
    assert "events" not in message
    assert azurite.account_key not in done.said
    assert azure_installation.count() == 1


def test_a_wrong_account_key_is_not_repeated(azure_installation: Installation, azurite: Azurite, command: Commands):
    azure_installation.add(1)
    connection_string = azurite.connection_string.replace(azurite.account_key, ACCOUNT_KEY)
    message = told(command("run", AZURE_STORAGE_CONNECTION_STRING=connection_string), 1)
    assert "the Blob service refuses with 403 AuthenticationFailed" in message or "403 AuthorizationFailure" in message
    assert azure_installation.count() == 1


def signed(azurite: Azurite, permission: str) -> str:
    """A connection string that permits so much in the container, and nothing outside of it."""
    until = datetime.now(UTC) + timedelta(hours=1)
    signature = generate_container_sas(
        azurite.account_name, "archive", azurite.account_key, permission=permission, expiry=until
    )
    return f"BlobEndpoint={azurite.account_url};SharedAccessSignature={signature}"


def test_a_container_that_is_missing_and_may_not_be_created(
    azure_installation: Installation, azurite: Azurite, command: Commands
):
    azure_installation.add(1)
    message = told(command("run", AZURE_STORAGE_CONNECTION_STRING=signed(azurite, "rcwl")), 1)
    assert "404 ContainerNotFound. Create the container, or permit its creation." in message
    assert azure_installation.count() == 1


def test_a_signature_that_may_only_read(azure_installation: Installation, azurite: Azurite, command: Commands):
    azure_installation.add(1)
    with ContainerClient.from_connection_string(azurite.connection_string, "archive") as container:
        container.create_container()
    message = told(command("run", AZURE_STORAGE_CONNECTION_STRING=signed(azurite, "rl")), 1)
    assert "the Blob service refuses with 403" in message
    assert "the shared access signature the permissions read, create, write and list (rcwl)" in message
    assert azure_installation.count() == 1
    # And those four are enough.
    done = command("run", AZURE_STORAGE_CONNECTION_STRING=signed(azurite, "rcwl"))
    assert (done.code, done.end["deleted"]) == (0, 1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-20], "bytes, its manifest says"),
        (lambda content: content.replace(b"evt-2024-03-01-1,", b"evt-2024-03-01-9,"), "its manifest says sha256"),
    ],
    ids=["cut short", "edited"],
)
def test_a_file_that_somebody_changed_is_refused(
    installation: Installation, command: Commands, damage: Callable[[bytes], bytes], words: str
):
    installation.add(3)
    command("run")
    file = installation.lake.stat(installation.dataset.path(DAY))
    assert file is not None
    installation.put(damage(installation.content()), metadata=dict(file.metadata))
    changed = installation.content()
    installation.add(1, prefix="late")
    message = told(command("run"), 1)
    assert f"events_{KEY}.csv" in message
    assert words in message
    assert f"accept it as it stands with 'event-archive adopt {KEY}'" in message
    assert (installation.content(), installation.count()) == (changed, 1)


def test_a_file_of_another_tool_is_taken_over_with_every_row(installation: Installation, command: Commands):
    installation.add(1)
    installation.put(b'id,event_type,event_id,payload,created_at\r\n77,"t, u",x,{},2024-03-01T10:00:00\r\n')
    done = command("run")
    assert (done.code, done.end["rows"], done.end["deleted"]) == (0, 2, 1)
    assert installation.values("event_id") == ["x", f"evt-{KEY}-0"]


def test_something_that_is_no_archive_at_the_days_path_is_left_alone(installation: Installation, command: Commands):
    installation.add(1)
    installation.put(b"\x89PNG\r\n\x1a\n")
    message = told(command("run"), 1)
    assert "its first line is not the header of a CSV file" in message
    assert (installation.content(), installation.count()) == (b"\x89PNG\r\n\x1a\n", 1)


def test_a_file_in_the_archive_tier_is_refused_with_what_to_do(
    azure_installation: Installation, azurite: Azurite, command: Commands
):
    azure_installation.add(1)
    command("run")
    azure_installation.add(1, prefix="late")
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        blob = service.get_blob_client("archive", azure_installation.dataset.path(DAY))
        blob.set_standard_blob_tier("Archive")
    message = told(command("run"), 1)
    assert "409 BlobArchived. It is in the archive tier. Rehydrate it" in message
    assert azure_installation.count() == 1


def test_a_folder_that_may_not_be_written(local_installation: Installation, command: Commands):
    local_installation.add(1)
    path = local_installation.variables["ARCHIVE_LOCAL_PATH"]
    with open(path, "w"):  # noqa: PTH123 (a file where the folder should be)
        pass
    message = told(command("run"), 1)
    assert "Not a directory" in message or "File exists" in message
    assert local_installation.count() == 1
