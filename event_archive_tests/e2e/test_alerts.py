"""The command line announces its own failures, and leaves its figures for Prometheus."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from event_archive.config.environment import Settings
from event_archive.domain.days import ONE_DAY
from event_archive.observability.announcement import announced
from event_archive_tests.fixtures.installation import Commands, Installation
from event_archive_tests.fixtures.pipeline import DAY, NO_CSV
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow

DAYS = [DAY, DAY + ONE_DAY, DAY + 2 * ONE_DAY]
KEYS = [day.isoformat() for day in DAYS]


def test_the_command_line_announces_its_own_failures(command: Commands, local_installation: Installation,
                                                     webhook: Webhook):  # fmt: skip
    for day in DAYS[:2]:
        local_installation.add(1, day=day)
    local_installation.put(NO_CSV)
    variables = local_installation.variables | {"ALERT_WEBHOOK_URL": webhook.url}
    assert command("run", **variables).code == 1
    (text,) = webhook.texts
    assert '1 day of public."Event" failed' in text
    assert f"{KEYS[0]}: " in text
    assert text.endswith("may fail until somebody has done what the message says.")
    # A service out of reach is no day's failure, but one of the run.
    gone = variables | {"PG_CONNECTION_STRING": "postgresql://archiver:pa55w0rd@127.0.0.1:9/events"}
    assert command("run", **gone).code == 1
    assert "PostgreSQL cannot be reached" in webhook.texts[1]
    assert webhook.texts[1].endswith("It may pass: the next run tries again.")
    assert "pa55w0rd" not in webhook.texts[1]
    # Nobody is told of a run that went well, nor of a wrong argument.
    assert command("run", KEYS[1], **variables).code == 0
    assert command("run", datetime.now(UTC).date().isoformat(), **variables).code == 2
    assert len(webhook.texts) == 2


def test_a_webhook_that_takes_nothing_changes_nothing_but_a_warning(
    command: Commands, local_installation: Installation, webhook: Webhook
):
    local_installation.add(1)
    local_installation.put(NO_CSV)
    webhook.statuses = [404]
    done = command("run", **local_installation.variables, ALERT_WEBHOOK_URL=webhook.url)
    assert done.code == 1
    assert "the failure could not be announced: ALERT_WEBHOOK_URL answers 404" in done.said
    assert "s3cr3t" not in done.said


def test_a_run_that_dies_is_announced_and_no_success(
    command: Commands, local_installation: Installation, webhook: Webhook, tmp_path: Path
):
    local_installation.add(1)
    path = tmp_path / "event_archive.prom"
    variables = local_installation.variables | {"ALERT_WEBHOOK_URL": webhook.url, "METRICS_TEXTFILE": str(path)}
    assert command("run", **variables, DAGSTER_HOME="/nowhere/at/all").code == 2
    assert "DAGSTER_HOME holds '/nowhere/at/all'" in webhook.texts[0]
    assert figures(path)["last_success_timestamp_seconds"] == 0
    assert figures(path)["backlog_days"] == 1


@pytest.mark.parametrize(("error", "told"), [(LookupError("s3cr3t"), ["LookupError"]), (KeyboardInterrupt(), [])])
def test_what_ends_a_run_from_outside_is_no_success_either(
    local_installation: Installation, webhook: Webhook, tmp_path: Path, clean: pytest.MonkeyPatch,
    error: BaseException, told: list[str],
):  # fmt: skip
    path = tmp_path / "event_archive.prom"
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    clean.setenv("METRICS_TEXTFILE", str(path))
    with pytest.raises(type(error)), announced(Settings.load(), bool):
        raise error
    assert figures(path)["last_success_timestamp_seconds"] == 0
    assert ("backlog_days" in figures(path)) == bool(told)
    assert [words in text for words, text in zip(told, webhook.texts, strict=True)] == [True] * len(told)
    assert "s3cr3t" not in "".join(webhook.texts)


def figures(path: Path) -> dict[str, float]:
    return {
        sample.name.removeprefix("event_archive_"): sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if sample.labels == {"table": 'public."Event"'}
    }


def test_a_run_leaves_its_figures_for_prometheus(command: Commands, local_installation: Installation, tmp_path: Path):
    path = tmp_path / "event_archive.prom"
    variables = local_installation.variables | {"METRICS_TEXTFILE": str(path)}
    for rows, day in enumerate(DAYS, start=2):
        local_installation.add(rows, day=day)
    local_installation.database.execute("""INSERT INTO "Event" (event_id, event_type, payload, created_at)
                                           VALUES ('lost', 't', '{}', '1999-01-01')""")
    assert command("run", KEYS[0], KEYS[1], **variables).code == 0
    found = figures(path)
    assert found.pop("run_seconds") > 0
    assert found.pop("last_run_timestamp_seconds") == found.pop("last_success_timestamp_seconds") > 1.7e9
    assert found.pop("drain_estimate_seconds") > 0
    assert found == {
        "run_days": 2,
        "run_failed_days": 0,
        "run_archived_rows": 5,
        "run_deleted_rows": 5,
        "backlog_days": 1,
        "backlog_rows": 4,
        "backlog_oldest_timestamp_seconds": datetime(DAYS[2].year, DAYS[2].month, DAYS[2].day, tzinfo=UTC).timestamp(),
        "orphan_rows": 1,
    }
    success = figures(path)["last_success_timestamp_seconds"]
    local_installation.put(NO_CSV, day=DAYS[2])
    assert command("run", **variables).code == 1
    found = figures(path)
    assert (found["run_failed_days"], found["backlog_rows"]) == (1, 4)
    assert found["last_success_timestamp_seconds"] == success < found["last_run_timestamp_seconds"]


def test_figures_that_cannot_be_written_are_a_warning(command: Commands, local_installation: Installation):
    local_installation.add(1)
    done = command("run", **local_installation.variables, METRICS_TEXTFILE="/nowhere/at/all.prom")
    assert done.code == 0
    assert "METRICS_TEXTFILE holds '/nowhere/at/all.prom', which cannot be written" in done.said
