"""Several datasets in one Dagster: what each has of its own, what serves all, and what one waits for of another."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.errors import DagsterUserCodeExecutionError

from event_archive.config.datasets import load_datasets
from event_archive.defs.executor import one_process
from event_archive.defs.jobs import tags_of
from event_archive_tests.fixtures.installation import ASSETS, Installation, failure, metadata
from event_archive_tests.fixtures.pipeline import DAY
from event_archive_tests.fixtures.pushgateway import Pushgateway
from event_archive_tests.fixtures.scheduler import night
from event_archive_tests.fixtures.two_datasets import DAYS, FILE, KEYS, Two, two
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow


CHILDREN_FIRST = FILE.replace("asset_keys: bare}", "asset_keys: bare, after: [notes]}")


@pytest.fixture
def children_first(
    local_installation: Installation, instance: dg.DagsterInstance, tmp_path: Path, clean: pytest.MonkeyPatch
) -> Two:
    """A day of events is purged after the notes of it."""
    return two(CHILDREN_FIRST, local_installation, instance, tmp_path, clean)


def deleted(result: dg.ExecuteInProcessResult, asset: str) -> object:
    assert result.success
    return metadata(result, asset)["deleted"]


def test_keys_groups_jobs_and_schedules_bear_the_datasets_name_and_upkeep_serves_all(two_datasets: Two):
    definitions = two_datasets.definitions
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert set(specs) == {*ASSETS, *(f"notes/{name}" for name in ASSETS)}
    assert {key: spec.group_name for key, spec in specs.items()} == {
        key: "notes" if key.startswith("notes/") else "events" for key in specs
    }
    assert [dep.asset_key.to_user_string() for dep in specs["notes/purged_events"].deps] == ["notes/archive_csv"]
    assert {job.name for job in definitions.resolve_all_job_defs()} >= {
        f"{job}_{name}" for job in ("archive_job", "restore_job") for name in ("events", "notes")
    }
    repository = definitions.get_repository_def()
    assert {schedule.name for schedule in repository.schedule_defs} == {
        *("archive_daily_events", "archive_daily_notes", "check_daily", "prune_weekly")
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {"failed_runs", "failed_days", "nightly_metrics"}
    dg.Definitions.validate_loadable(definitions)


def test_all_jobs_run_in_one_process_and_a_datasets_job_is_of_its_assets_alone(two_datasets: Two):
    for name, keys in (("events", set(ASSETS)), ("notes", {f"notes/{asset}" for asset in ASSETS})):
        job = two_datasets.definitions.resolve_job_def(f"archive_job_{name}")
        assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == keys
        for each in (job, two_datasets.definitions.resolve_job_def(f"restore_job_{name}")):
            assert each.executor_def is one_process


def test_two_datasets_pass_each_others_gate(two_datasets: Two):
    two_datasets.events.add(3)
    two_datasets.note(KEYS[0])
    assert two_datasets.run("events", KEYS[0], ["aged_events", "archive_csv"]).success
    # The other's archive of the same day opens no gate.
    said = failure(two_datasets.run("notes", KEYS[0], ["notes/purged_events"]))
    assert "notes/archive_csv of 2024-03-01 was never materialized" in said
    assert (two_datasets.notes(), two_datasets.events.count()) == (3, 3)
    notes = two_datasets.run("notes", KEYS[0])
    assert deleted(notes, "notes__purged_events") == 3
    assert deleted(two_datasets.run("events", KEYS[0], ["purged_events"]), "purged_events") == 3
    assert metadata(notes, "notes__archive_csv")["path"] != two_datasets.events.dataset.path(DAY)


def test_a_day_of_one_in_flight_does_not_block_that_day_of_the_other(two_datasets: Two):
    for day in DAYS[:2]:
        two_datasets.events.add(1, day=day)
        two_datasets.note(day.isoformat())
    events, notes = two_datasets.scheduler("events"), two_datasets.scheduler("notes")
    notes.in_flight(dg.DagsterRunStatus.QUEUED, job="archive_job_notes", partition=KEYS[0])
    assert (events.days(), notes.days()) == (KEYS[:2], KEYS[1:2])


def test_a_run_from_the_asset_pages_counts_for_its_own_dataset_only(two_datasets: Two):
    for day in DAYS:
        two_datasets.events.add(1, day=day)
        two_datasets.note(day.isoformat())
    events, notes = two_datasets.scheduler("events"), two_datasets.scheduler("notes")
    queued = dg.DagsterRunStatus.QUEUED
    events.in_flight(queued, job="__ASSET_JOB", assets=["archive_csv"], partition=KEYS[0])
    events.in_flight(queued, job="__ASSET_JOB", assets=["notes/archive_csv"], partition=KEYS[1])
    events.in_flight(queued, job="__ASSET_JOB", assets=["purged_events", "notes/purged_events"], partition=KEYS[2])
    assert (events.days(), notes.days()) == (KEYS[1:2], KEYS[:1])


def test_the_schedule_holds_days_back_while_the_other_has_rows_of_them_or_of_older_ones(
    children_first: Two, pushgateway: Pushgateway, clean: pytest.MonkeyPatch
):
    clean.setenv("METRICS_PUSHGATEWAY", pushgateway.url)
    for day in DAYS:
        children_first.events.add(2, day=day)
    children_first.note(KEYS[1])
    events, notes = children_first.scheduler("events"), children_first.scheduler("notes")
    # The third has no note, but an older day has.
    assert (events.days(), notes.days()) == (KEYS[:1], KEYS[1:2])
    (request,) = events.requests(night(0))
    assert deleted(events.launch(request), "purged_events") == 2
    assert events.evaluate(night(1)) == "2 aged days have rows: 2 behind another dataset; the figures were pushed"
    # Nothing is to be done by then: the figures go on.
    group = ("job", "event_archive", "dataset", "events", "table", 'public."Event"')
    assert pushgateway.of(*group)["event_archive_backlog_days"] == 2
    assert pushgateway.of(*group)["event_archive_last_success_timestamp_seconds"] > 1.7e9
    (request,) = notes.requests(night(0))
    assert deleted(notes.launch(request), "notes__purged_events") == 2
    assert events.days() == KEYS[1:]
    assert [deleted(events.launch(each), "purged_events") for each in events.requests(night(1))] == [2, 2]


def test_the_purge_of_a_day_before_its_turn_refuses_and_deletes_nothing(children_first: Two):
    for day in DAYS[:2]:
        children_first.events.add(2, day=day)
    children_first.note(KEYS[0])
    early = children_first.run("events", KEYS[1])
    assert failure(early) == (
        'events (public."Event"), 2024-03-02: it comes after notes (public.notes), which has rows of 2024-03-01. '
        "Nothing was deleted; a later run goes on when they are purged."
    )
    (event,) = [event for event in early.all_events if event.is_step_failure]
    assert event.step_failure_data.user_failure_data.metadata["error"].value == "WaitingError"  # type: ignore[union-attr]
    # What was archived stays so.
    assert metadata(early, "archive_csv")["dagster/row_count"] == 2
    assert (children_first.events.count(), children_first.notes()) == (4, 2)
    assert deleted(children_first.run("notes", KEYS[0]), "notes__purged_events") == 2
    assert deleted(children_first.run("events", KEYS[1]), "purged_events") == 2


def test_the_other_datasets_purge_is_upstream_day_by_day_although_their_partitions_differ(children_first: Two):
    specs = {spec.key.to_user_string(): spec for spec in children_first.definitions.resolve_all_asset_specs()}
    keys = [dep.asset_key.to_user_string() for dep in specs["purged_events"].deps]
    assert keys == ["archive_csv", "notes/purged_events"]
    dg.Definitions.validate_loadable(children_first.definitions)
    # In 2016, the notes have no partition.
    children_first.events.database.execute("""INSERT INTO "Event" (event_id, event_type, payload, created_at)
                                              VALUES ('old', 't', '{}', '2016-01-01')""")
    assert deleted(children_first.run("events", "2016-01-01"), "purged_events") == 1


def test_a_night_that_cannot_see_the_dataset_before_it_is_announced(
    children_first: Two, webhook: Webhook, clean: pytest.MonkeyPatch
):
    children_first.events.add(1)
    children_first.events.database.execute("ALTER TABLE notes RENAME TO elsewhere")
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    with pytest.raises(DagsterUserCodeExecutionError):
        children_first.scheduler("events").evaluate(night(0))
    (text,) = webhook.texts
    assert 'events (public."Event")' in text
    assert "public.notes" in text
    assert text.endswith("The night launched no day.")


def test_runs_of_each_bear_the_datasets_name(two_datasets: Two):
    tags = [tags_of(settings.dataset) for settings in load_datasets()]
    for name, expected in zip(("events", "notes"), tags, strict=True):
        two_datasets.events.add(1, prefix=name)
        found = two_datasets.instance.get_run_by_id(two_datasets.run(name, KEYS[0]).run_id)
        assert found is not None
        assert found.tags.items() >= expected.items()
        assert expected["event_archive/dataset"] == name


def test_a_dataset_whose_database_is_away_keeps_no_other_from_its_night(two_datasets: Two):
    two_datasets.events.add(1)
    two_datasets.events.database.execute("DROP TABLE notes")
    with pytest.raises(DagsterUserCodeExecutionError):
        two_datasets.scheduler("notes").evaluate(night(0))
    assert two_datasets.scheduler("events").days() == KEYS[:1]
