"""What is announced where ALERT_WEBHOOK_URL says: which days or files failed, and why. Not here: when, and by whom."""

import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import urlsplit

from event_archive.certificates import REQUESTS_BUNDLES, require_bundle, untrusted
from event_archive.config.environment import ListenerSettings
from event_archive.domain.wording import counted
from event_archive.errors import EventArchiveError, RefusedError, UnreachableError, printable

logger = logging.getLogger(__name__)

# With three attempts, a run ends within a minute even where the webhook never answers.
_CONNECT_SECONDS, _ANSWER_SECONDS = 5, 10
# Not urllib3's retries, which log the URL.
_ATTEMPTS = 3
# The first status that is no success; redirects are not followed.
_MULTIPLE_CHOICES = 300
# Throttled, or out of order for the moment: the next attempt may be taken.
_TRANSIENT_STATUS = (429, 500, 502, 503, 504)
# At most 5,000 characters of causes: Teams refuses messages beyond 28 kB, and nobody reads more in a channel.
_MOST_DAYS, _MOST_CAUSES, _MOST_CHARACTERS = 10, 5, 1_000
_SLACK = re.compile(r"(^|\.)slack(-gov)?\.com$")
# Workflows, which took over from Teams' connectors, take Adaptive Cards alone; everybody else takes {"text": ...}.
_TEAMS = re.compile(r"(^|\.)(logic\.azure\.com|api\.powerplatform\.com|webhook\.office\.com)$")


@dataclass(frozen=True, slots=True)
class FailedDay:
    """A day that failed: ``YYYY-MM-DD``, or empty where the failure was of no day; and why, for people."""

    day: str
    why: str


def failure_message(table: str, failures: Iterable[FailedDay], what_to_do: str) -> str:
    """A message about days that failed, those of one cause together.

    Args:
        table: whose days.
        failures: which, and why.
        what_to_do: the last line.
    """
    causes: dict[str, set[FailedDay]] = {}
    for failed in failures:
        # One outage reads alike for every day but for the day itself.
        cause = failed.why.replace(failed.day, "DAY") if failed.day else failed.why
        causes.setdefault(cause, set()).add(failed)
    days = {failed.day for of_cause in causes.values() for failed in of_cause if failed.day}
    what = f"{counted(len(days), 'day', 'days')} of {table} failed" if days else f"{table}: failed"
    lines = [f"event_archive: {what}."]
    for cause, of_cause in list(causes.items())[:_MOST_CAUSES]:
        listed = _listed(sorted(failed.day for failed in of_cause if failed.day))
        why = cause if len(of_cause) > 1 else of_cause.pop().why
        lines.append(f"{listed}{': ' if listed else ''}{why[:_MOST_CHARACTERS]}")
    if len(causes) > _MOST_CAUSES:
        lines.append(f"And {counted(len(causes) - _MOST_CAUSES, 'other cause', 'other causes')}.")
    return "\n".join([*lines, what_to_do])


def given_up_message(files: int, errors: Mapping[str, str]) -> str:
    """A message about log files that were given up.

    Args:
        files: how many.
        errors: the keys of some of them, and why each.
    """
    lines = [f"event_archive: {counted(files, 'log file was', 'log files were')} given up."]
    lines += [f"{printable(key)}: {why}"[:_MOST_CHARACTERS] for key, why in errors.items()]
    if files > len(errors):
        lines.append(f"And {files - len(errors)} more: see `event-archive ingest logs --status`.")
    return "\n".join(
        [*lines, "Once the cause is mended, `event-archive ingest logs --retry-failed` takes them up again."]
    )


def check_message(check: str, why: str) -> str:
    """A message about a check that failed."""
    return f"event_archive: the check {check} failed.\n{why[:_MOST_CHARACTERS]}"


def post(url: str, message: str) -> None:
    """Posts a message; Teams gets it as an Adaptive Card, Slack and others as ``{"text": message}``.

    Args:
        url: the webhook's. A secret: whoever has it can post.
        message: lines of text.

    Raises:
        ConfigurationError: the variable of the certificates to trust is wrong.
        UnreachableError: nobody answered within some 30 seconds, or only with 429 or 5xx.
        RefusedError: the webhook answered that it will not, or its certificate is not trusted.
    """
    # Late: most commands have nothing to announce.
    import requests

    require_bundle(url)
    body = _body(url, message)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with _unlogged():
                # Its body is not read: it may take for ever to come.
                answer = requests.post(
                    url, json=body, timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS), allow_redirects=False, stream=True
                )
                answer.close()
        # OSError: any of requests'. ValueError: urllib3's of an address that is none.
        except (OSError, ValueError) as error:
            if refused := untrusted(error, "ALERT_WEBHOOK_URL", check="it", variable=REQUESTS_BUNDLES[0]):
                raise refused from None
            problem = f"cannot be reached ({type(error).__name__})"
        else:
            if answer.status_code < _MULTIPLE_CHOICES:
                return
            problem = f"answers {answer.status_code}"
            if answer.status_code not in _TRANSIENT_STATUS:
                raise RefusedError(f"ALERT_WEBHOOK_URL {problem}: it does not take the message. Check it.")
        if attempt < _ATTEMPTS:
            time.sleep(attempt)
    # Neither chained nor with the library's words: they hold the URL.
    raise UnreachableError(
        f"ALERT_WEBHOOK_URL {problem}, {_ATTEMPTS} times. Check it, and that this machine may connect."
    )


class _WithoutRequests(logging.Filter):
    """Drops what urllib3 logs of each request of this thread at level DEBUG: of a webhook, the path is the secret."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


@contextmanager
def _unlogged() -> Iterator[None]:
    logger, dropped = logging.getLogger("urllib3.connectionpool"), _WithoutRequests()
    logger.addFilter(dropped)
    try:
        yield
    finally:
        logger.removeFilter(dropped)


def alert_or_warn(message: str) -> None:
    """Posts a message where ALERT_WEBHOOK_URL is set, for callers with a failure of their own to raise or show.

    A message that is not taken is a warning.

    Raises:
        ConfigurationError: the setting is wrong.
    """
    url = ListenerSettings.load().alert_webhook_url
    if url is None:
        return
    try:
        post(url.get_secret_value(), message)
    except EventArchiveError as error:
        logger.warning("the failure could not be announced: %s", error)


def _body(url: str, message: str) -> dict[str, Any]:
    host = urlsplit(url).hostname or ""
    if _SLACK.search(host):
        # Or a part that others wrote could address everybody: https://docs.slack.dev/messaging/formatting-message-text
        return {"text": escape(message, quote=False)}
    if not _TEAMS.search(host):
        return {"text": message}
    # Not a TextBlock, whose text is Markdown: what others wrote could be a link.
    blocks = [
        {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line}]} for line in message.splitlines()
    ]
    card = {"type": "AdaptiveCard", "version": "1.4", "body": blocks}
    return {
        "type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
    }


def _listed(days: list[str]) -> str:
    more = f" and {len(days) - _MOST_DAYS} more" if len(days) > _MOST_DAYS else ""
    return ", ".join(days[:_MOST_DAYS]) + more
