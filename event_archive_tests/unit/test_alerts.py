"""What a webhook is told, and what becomes of a message that it does not take."""

import logging
import traceback

import pytest

from event_archive.errors import RefusedError, UnreachableError
from event_archive.observability.alerts import FailedDay, _body, failure_message, given_up_message, post
from event_archive_tests.fixtures.webhook import Webhook

TABLE = 'public."Event"'


def test_days_of_one_cause_are_told_together():
    outage = [FailedDay(day, f"{TABLE}, {day}: PostgreSQL says: no") for day in ("2024-03-02", "2024-03-01")]
    told = failure_message(TABLE, [*outage, FailedDay("2024-03-03", "2024-03-03 was edited")], "Look.")
    assert told.splitlines() == [
        'event_archive: 3 days of public."Event" failed.',
        '2024-03-01, 2024-03-02: public."Event", DAY: PostgreSQL says: no',
        "2024-03-03: 2024-03-03 was edited",
        "Look.",
    ]


def test_many_days_and_many_causes_stay_one_message_of_bounded_length():
    days = [FailedDay(f"2024-03-{n:02}", "out of reach") for n in range(1, 32)]
    told = failure_message(TABLE, days, "Look.")
    assert "31 days" in told
    assert "2024-03-10 and 21 more: out of reach" in told
    causes = [FailedDay(f"2024-03-{n:02}", f"cause {n}" * 1000) for n in range(1, 32)]
    assert "And 26 other causes." in failure_message(TABLE, causes, "Look.")
    assert len(failure_message(TABLE, causes, "Look.")) < 6000


def test_a_day_whose_runs_failed_several_times_is_told_once():
    runs = [FailedDay(f"2024-03-{n:02}", "out of reach") for n in range(1, 12)] + [
        FailedDay("2024-03-01", "out of reach")
    ]
    assert "2024-03-01, 2024-03-02" in failure_message(TABLE, runs, "Look.")
    assert "2024-03-10 and 1 more: out of reach" in failure_message(TABLE, runs, "Look.")


def test_a_failure_of_no_day_is_told_as_it_is():
    told = failure_message(TABLE, [FailedDay("", "PostgreSQL cannot be reached")], "Look.")
    assert told.splitlines() == [
        'event_archive: public."Event": failed.',
        "PostgreSQL cannot be reached",
        "Look.",
    ]


def test_a_message_is_posted_as_text_and_the_url_logged_by_nobody(webhook: Webhook, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    post(webhook.url, "one\ntwo")
    assert webhook.posts == [{"text": "one\ntwo"}]
    assert "s3cr3t" not in caplog.text


@pytest.mark.parametrize(
    "host",
    ["prod-1.westus.logic.azure.com:443", "default1.02.environment.api.powerplatform.com", "x.webhook.office.com"],
)
def test_teams_gets_an_adaptive_card_with_a_block_a_line(host: str):
    body = _body(f"https://{host}/workflows/1/triggers/manual/paths/invoke?sig=x", "one\ntwo")
    (attachment,) = body["attachments"]
    assert body["type"] == "message"
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment["content"]["type"] == "AdaptiveCard"
    # Of a RichTextBlock no text is Markdown: https://adaptivecards.io/explorer/TextRun.html
    assert attachment["content"]["body"] == [
        {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line}]} for line in ("one", "two")
    ]


@pytest.mark.parametrize("host", ["hooks.slack.com", "logic.azure.com.example.org", "notlogic.azure.com", "127.0.0.1"])
def test_nobody_else_gets_a_card(host: str):
    assert _body(f"https://{host}/x", "one") == {"text": "one"}


def test_what_others_wrote_addresses_nobody_in_slack():
    message = given_up_message(1, {"<!channel>\n\x1b[2J.log": "x"})
    text = _body("https://hooks.slack.com/services/x", message)["text"]
    assert "\n&lt;!channel&gt;\\n\\x1b[2J.log: x\n" in text
    assert _body("https://127.0.0.1/x", message) == {"text": message}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_webhook_that_is_busy_is_asked_again(webhook: Webhook, status: int):
    webhook.statuses = [status]
    post(webhook.url, "late")
    assert webhook.texts == ["late"]


@pytest.mark.parametrize(("status", "error"), [(400, RefusedError), (404, RefusedError), (302, RefusedError)])
def test_a_refusal_is_told_without_the_url(webhook: Webhook, status: int, error: type[Exception]):
    webhook.statuses = [status]
    with pytest.raises(error, match=str(status)) as refused:
        post(webhook.url, "unwanted")
    assert "s3cr3t" not in str(refused.value)


def test_a_webhook_that_stays_busy_is_given_up(webhook: Webhook):
    webhook.statuses = [503] * 3
    with pytest.raises(UnreachableError, match="503"):
        post(webhook.url, "unheard")
    assert (webhook.statuses, webhook.posts) == ([], [])


def test_an_answer_whose_body_never_comes_is_one(webhook: Webhook):
    webhook.never_ends = True
    post(webhook.url, "hello")
    assert webhook.texts == ["hello"]


def test_nobody_there_is_told_without_the_url(caplog: pytest.LogCaptureFixture):
    secret = "s3cr" + "3t"
    with pytest.raises(UnreachableError) as unreachable:
        post(f"http://127.0.0.1:9/hook/{secret}", "unheard")
    assert secret not in "".join(traceback.format_exception(unreachable.value, limit=-1)) + caplog.text


def test_one_other_cause_is_one():
    causes = [FailedDay(f"2024-03-{n:02}", f"cause {n}") for n in range(1, 7)]
    assert "And 1 other cause." in failure_message(TABLE, causes, "Look.")
