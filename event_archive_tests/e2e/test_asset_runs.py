"""Runs of the assets that fail, are tried again, executed again, or meet another run."""

import dagster as dg
import psycopg
import pytest

from event_archive.defs import failures
from event_archive.defs.assets import OUTCOME_TAG
from event_archive.defs.failures import RETRY_SECONDS, dagster_failures
from event_archive.errors import BusyError, IntegrityError
from event_archive.postgres import connecting
from event_archive_tests.fixtures.archived import KEY
from event_archive_tests.fixtures.installation import Installation, failure, metadata
from event_archive_tests.fixtures.pipeline import NO_CSV
from event_archive_tests.fixtures.runs import retries


def test_a_run_that_is_executed_again_bears_its_own_outcome(
    local_installation: Installation, instance: dg.DagsterInstance
):
    """Dagster gives it the tags of the former run."""
    local_installation.add(3)
    dry = instance.get_run_by_id(local_installation.materialize(instance, KEY, dry_run=True).run_id)
    assert dry
    result = local_installation.materialize(instance, KEY, tags=dry.tags)
    assert metadata(result, "purged_events")["deleted"] == 3
    assert instance.get_run_by_id(result.run_id).tags[OUTCOME_TAG] == "purged"  # type: ignore[union-attr]
    local_installation.add(1, prefix="late")
    local_installation.put(NO_CSV)
    result = local_installation.materialize(instance, KEY, only=["purged_events"], tags=dry.tags)
    assert not result.success
    assert instance.get_run_by_id(result.run_id).tags[OUTCOME_TAG] == "failed"  # type: ignore[union-attr]


def test_where_another_run_holds_the_day_this_one_succeeds_and_says_so(
    local_installation: Installation, instance: dg.DagsterInstance
):
    local_installation.add(3)
    with psycopg.connect(local_installation.database.dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f'event_archive public."Event" {KEY}',))
        result = local_installation.materialize(instance, KEY)
    purged = metadata(result, "purged_events")
    assert [purged[name] for name in ("outcome", "deleted", "left")] == ["locked", 0, 3]
    # The other run does the work: the schedule need not put this day last.
    assert OUTCOME_TAG not in instance.get_run_by_id(result.run_id).tags  # type: ignore[union-attr]


def test_a_run_that_fails_between_archive_and_purge_keeps_the_archive(
    installation: Installation, instance: dg.DagsterInstance
):
    installation.add(3)
    installation.database.execute('CREATE TABLE note (event bigint REFERENCES "Event"); INSERT INTO note VALUES (2)')
    result = installation.materialize(instance, KEY)
    assert "still refer to rows of this day" in failure(result)
    assert retries(result) == 0
    archived = metadata(result, "archive_csv")
    assert not result.asset_materializations_for_node("purged_events")
    assert installation.count() == 3
    installation.database.execute("DROP TABLE note")
    result = installation.materialize(instance, KEY)
    assert metadata(result, "archive_csv")["rows_appended"] == 0
    assert metadata(result, "archive_csv")["etag"] == archived["etag"]
    assert metadata(result, "purged_events")["deleted"] == 3


def test_what_passes_is_tried_again_and_what_does_not_is_not():
    def raised(error: Exception, retry_number: int | None) -> Exception:
        with (
            pytest.raises((dg.Failure, dg.RetryRequested)) as failed,
            dagster_failures(None, retry_number),
        ):
            raise error
        return failed.value

    for retry_number, seconds in ((0, RETRY_SECONDS), (1, 2 * RETRY_SECONDS)):
        retry = raised(BusyError("wait"), retry_number)
        assert isinstance(retry, dg.RetryRequested)
        assert (retry.max_retries, retry.seconds_to_wait) == (2, seconds)
    for refused in (raised(IntegrityError("no"), 0), raised(BusyError("no"), None)):
        assert isinstance(refused, dg.Failure)
        assert (refused.allow_retries, refused.description) == (False, "no")


def test_a_step_that_meets_what_passes_is_tried_three_times_and_says_why_it_failed(
    local_installation: Installation, instance: dg.DagsterInstance, clean: pytest.MonkeyPatch
):
    clean.setattr(failures, "RETRY_SECONDS", 0)
    clean.setattr(connecting, "_ATTEMPTS", 1)
    clean.setenv("PG_CONNECTION_STRING", "postgresql://archiver@127.0.0.1:9/events")
    result = local_installation.materialize(instance, KEY, only=["aged_events"])
    assert "PostgreSQL cannot be reached" in failure(result)
    assert retries(result) == 4
