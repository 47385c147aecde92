"""What is announced where ALERT_WEBHOOK_URL says: which days failed, and why. Not here: when, and by whom."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from event_archive.errors import RefusedError, UnreachableError

_CONNECT_SECONDS, _ANSWER_SECONDS = 5, 10
_MOST_DAYS, _MOST_CAUSES, _MOST_CHARACTERS = 10, 5, 1_000
# Workflows, which took over from Teams' connectors, take Adaptive Cards alone; everybody else takes {"text": ...}.
_TEAMS = re.compile(r"(^|\.)(logic\.azure\.com|api\.powerplatform\.com|webhook\.office\.com)$")


@dataclass(frozen=True, slots=True)
class FailedDay:
    """A day that failed: ``YYYY-MM-DD``, or empty where the failure was of no day; and why, for people."""

    day: str
    why: str


def failures_told(table: str, failures: Iterable[FailedDay], what_to_do: str) -> str:
    """A message about days that failed, those of one cause together.

    Args:
        table: whose days.
        failures: which, and why.
        what_to_do: the last line.
    """
    causes: dict[str, list[str]] = {}
    for failed in failures:
        # One outage reads alike for every day but for the day itself.
        cause = failed.why.replace(failed.day, "DAY") if failed.day else failed.why
        causes.setdefault(cause, []).append(failed.day)
    days = sorted({day for of_cause in causes.values() for day in of_cause if day})
    counted = f"{len(days)} {'day' if len(days) == 1 else 'days'} of {table} failed" if days else f"{table}: failed"
    lines = [f"event_archive: {counted}."]
    for cause, of_cause in list(causes.items())[:_MOST_CAUSES]:
        told = _listed(sorted(filter(None, of_cause)))
        lines.append(f"{told}{': ' if told else ''}{cause[:_MOST_CHARACTERS]}")
    if len(causes) > _MOST_CAUSES:
        lines.append(f"And {len(causes) - _MOST_CAUSES} other causes.")
    return "\n".join([*lines, what_to_do])


def post(url: str, message: str) -> None:
    """Posts a message; Teams gets it as an Adaptive Card, Slack and others as ``{"text": message}``.

    Args:
        url: the webhook's. A secret: whoever has it can post.
        message: lines of text.

    Raises:
        UnreachableError: nobody answered within some 30 seconds, or only with 429 or 5xx.
        RefusedError: the webhook answered that it will not.
    """
    # Not as long as Retry-After may ask for: whoever waits holds up a run or a sensor.
    retry = Retry(
        total=2, backoff_factor=1, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=("POST",),
        respect_retry_after_header=False, raise_on_status=False,
    )  # fmt: skip
    with requests.Session() as session:
        session.mount("https://", HTTPAdapter(max_retries=retry))
        session.mount("http://", HTTPAdapter(max_retries=retry))
        try:
            answer = session.post(
                url, json=_body(url, message), timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS), allow_redirects=False
            )
        except requests.RequestException as error:
            # Not chained and without its words: they hold the URL.
            raise UnreachableError(
                f"ALERT_WEBHOOK_URL cannot be reached ({type(error).__name__}). Check it, and that this machine may "
                "connect to it."
            ) from None
    if answer.status_code == requests.codes.too_many or answer.status_code >= requests.codes.server_error:
        raise UnreachableError(f"ALERT_WEBHOOK_URL answers {answer.status_code}, three times in a row.")
    if not answer.ok or answer.is_redirect:
        raise RefusedError(f"ALERT_WEBHOOK_URL answers {answer.status_code}: it does not take the message. Check it.")


def _body(url: str, message: str) -> dict[str, object]:
    if not _TEAMS.search(urlsplit(url).hostname or ""):
        return {"text": message}
    blocks = [{"type": "TextBlock", "text": line, "wrap": True} for line in message.splitlines()]
    card = {"type": "AdaptiveCard", "version": "1.4", "body": blocks}
    return {
        "type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}],
    }


def _listed(days: list[str]) -> str:
    more = f" and {len(days) - _MOST_DAYS} more" if len(days) > _MOST_DAYS else ""
    return ", ".join(days[:_MOST_DAYS]) + more
