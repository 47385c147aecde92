"""Requests to Azure Blob Storage that only the doctor makes. Not here: what every lake does, what refusals mean."""

import time
from collections.abc import Callable
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import ContainerClient, StorageErrorCode

from event_archive.lake.azure.errors import Subject, ask, or_none


def lacks_container(
    container: ContainerClient, path: str, *, patience_seconds: float, dated: Callable[[str, float], None]
) -> bool:
    """Asks for a file that is not there, and says whether the container is not there either.

    Args:
        container: the lake's.
        path: of the file.
        patience_seconds: how long the answer is waited for.
        dated: is called with the ``Date`` of each answer of a Blob service, refusals included, and how many seconds it
            took.

    Raises:
        UnreachableError, RefusedError: as the Blob service says.
    """

    def answered(response: Any) -> None:
        answer = response.http_response
        date = answer.headers.get("Date")
        # Others answer, too: a proxy, a gateway.
        if date and any(name.lower().startswith("x-ms-") for name in answer.headers):
            dated(date, answer.internal_response.elapsed.total_seconds())

    def look() -> str | None:
        try:
            container.get_blob_client(path).get_blob_properties(
                raw_response_hook=answered, retry_until=time.monotonic() + patience_seconds
            )
        except ResourceNotFoundError as error:
            return getattr(error, "error_code", None)
        return ""

    return ask(Subject(_where(container)), look) == StorageErrorCode.CONTAINER_NOT_FOUND


def remove(container: ContainerClient, path: str) -> None:
    """Deletes a file, if there is one.

    Raises:
        UnreachableError, RefusedError: as the Blob service says.
    """
    ask(Subject(_where(container), path, "delete"), or_none(container.get_blob_client(path).delete_blob))


def is_hierarchical(container: ContainerClient) -> bool:
    """Whether the account has a hierarchical namespace (is a Data Lake).

    Raises:
        UnreachableError, RefusedError: as the Blob service says; some signatures may not ask.
    """
    information: dict[str, Any] = ask(Subject(_where(container)), container.get_account_information)
    return str(information.get("is_hns_enabled")).lower() == "true"


def _where(container: ContainerClient) -> str:
    return container.primary_endpoint.split("?")[0]
