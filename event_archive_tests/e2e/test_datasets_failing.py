"""Several datasets in one Dagster: failures are told, tried again and pruned dataset by dataset."""

from pathlib import Path

import dagster as dg
import pytest

from event_archive.config.datasets import load_datasets
from event_archive.defs.build import build_definitions
from event_archive_tests.fixtures.installation import ASSETS
from event_archive_tests.fixtures.pipeline import NO_CSV
from event_archive_tests.fixtures.scheduler import Scheduler, Sensor
from event_archive_tests.fixtures.two_datasets import DAYS, FILE, KEYS, Two
from event_archive_tests.fixtures.webhook import Webhook

pytestmark = pytest.mark.slow


def test_failed_runs_are_told_in_a_message_for_each_dataset(
    two_datasets: Two, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    sensor = Sensor(two_datasets.definitions, two_datasets.instance, "failed_runs")
    sensor.tick()
    notes = two_datasets.events.of(table=load_datasets()[1].dataset.table, file_prefix="notes")
    for day in DAYS[:2]:
        two_datasets.events.add(1, day=day)
        two_datasets.note(day.isoformat())
    two_datasets.events.put(NO_CSV)
    for day in DAYS[:2]:
        notes.put(NO_CSV, day=day)
        assert not two_datasets.run("notes", day.isoformat()).success
    assert not two_datasets.run("events", KEYS[0]).success
    sensor.tick()
    of_events, of_notes = sorted(webhook.texts)
    assert '1 day of events (public."Event") failed' in of_events
    assert "2 days of notes (public.notes) failed" in of_notes
    assert f"{KEYS[0]}, {KEYS[1]}: " in of_notes


def test_a_failed_run_from_the_asset_pages_is_told_of_the_dataset_whose_asset_it_was(
    two_datasets: Two, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    sensor = Sensor(two_datasets.definitions, two_datasets.instance, "failed_runs")
    sensor.tick()
    failed = two_datasets.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        partition_key=KEYS[0],
        instance=two_datasets.instance,
        asset_selection=[dg.AssetKey(["notes", "purged_events"])],
        raise_on_error=False,
    )
    assert not failed.success
    sensor.tick()
    (text,) = webhook.texts
    assert "1 day of notes (public.notes) failed" in text


def test_a_failed_run_of_checks_alone_is_told_of_the_dataset_whose_checks_they_were(
    two_datasets: Two, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    sensor = Sensor(two_datasets.definitions, two_datasets.instance, "failed_runs")
    sensor.tick()
    job = two_datasets.definitions.resolve_implicit_global_asset_job_def()
    check = dg.AssetCheckKey(dg.AssetKey(["notes", "archive_csv"]), "archive_is_whole")
    # As the asset pages launch it.
    alone = dg.DagsterRun(job_name=job.name, asset_check_selection=frozenset([check]))
    two_datasets.instance.report_run_failed(two_datasets.instance.add_run(alone))
    sensor.tick()
    (text,) = webhook.texts
    assert text.startswith("event_archive: notes (public.notes): failed.\n")


def test_failed_upkeep_of_several_datasets_is_told_by_its_job(
    two_datasets: Two, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    sensor = Sensor(two_datasets.definitions, two_datasets.instance, "failed_runs")
    sensor.tick()
    two_datasets.events.database.execute("DROP TABLE notes CASCADE")
    job = two_datasets.definitions.resolve_job_def("check_job")
    assert not job.execute_in_process(instance=two_datasets.instance, raise_on_error=False).success
    sensor.tick()
    (text,) = webhook.texts
    assert text.startswith("event_archive: check_job: failed.\n")
    assert "public.notes" in text


def test_a_failed_run_of_a_dataset_that_has_another_name_by_now_is_told_of_no_other(
    two_datasets: Two, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    sensor = Sensor(two_datasets.definitions, two_datasets.instance, "failed_runs")
    sensor.tick()
    former = {"event_archive/dataset": "remarks", "event_archive/table": "public.notes"}
    job = two_datasets.definitions.resolve_job_def("archive_job_notes")
    by_schedule = two_datasets.instance.create_run_for_job(job, tags={**former, "dagster/partition": KEYS[0]})
    asset = dg.AssetKey(["remarks", "archive_csv"])

    @dg.asset(key=asset)
    def archive_csv() -> None: ...

    pages = dg.Definitions(assets=[archive_csv])
    by_hand = two_datasets.instance.create_run_for_job(
        pages.resolve_implicit_global_asset_job_def(), tags={"dagster/partition": KEYS[1]}, asset_selection={asset}
    )
    # As Dagster fails a run whose job is not there any more.
    for run in (by_schedule, by_hand):
        two_datasets.instance.report_run_failed(run)
    sensor.tick()
    of_schedule, of_hand = sorted(webhook.texts)
    assert "1 day of remarks (public.notes) failed" in of_schedule
    assert "1 day of remarks/archive_csv failed" in of_hand


def test_a_restore_that_fails_is_told_of_its_own_dataset(
    two_datasets: Two, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    sensor = Sensor(two_datasets.definitions, two_datasets.instance, "failed_runs")
    sensor.tick()
    job = two_datasets.definitions.resolve_job_def("restore_job_notes")
    config = {"ops": {"restore_days_notes": {"config": {"first_day": KEYS[0]}}}}
    assert not job.execute_in_process(run_config=config, instance=two_datasets.instance, raise_on_error=False).success
    sensor.tick()
    (text,) = webhook.texts
    assert text.startswith("event_archive: notes (public.notes): failed.\n")


def test_days_left_failed_without_rows_are_run_again_each_by_its_datasets_job(
    two_datasets: Two, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    notes = two_datasets.events.of(table=load_datasets()[1].dataset.table, file_prefix="notes")
    for each in (two_datasets.events, notes):
        each.put(NO_CSV)
    two_datasets.run("events", KEYS[0])
    two_datasets.run("notes", KEYS[0])
    two_datasets.run("notes", KEYS[1])
    found = Sensor(two_datasets.definitions, two_datasets.instance, "failed_days").tick()
    asked = [(request.job_name, request.partition_key) for request in found.run_requests]
    assert asked == [("archive_job_events", KEYS[0]), ("archive_job_notes", KEYS[0])]
    assert ['events (public."Event")' in text for text in webhook.texts] == [True, False]
    assert ["notes (public.notes)" in text for text in webhook.texts] == [False, True]


def test_pruning_keeps_the_latest_materializations_of_each_dataset(two_datasets: Two):
    two_datasets.events.add(1)
    two_datasets.note(KEYS[0])
    old = [two_datasets.run(name, KEYS[0]).run_id for name in ("notes", "events")]
    kept = [two_datasets.run(name, KEYS[0]).run_id for name in ("notes", "events")]
    checks = two_datasets.definitions.resolve_job_def("check_job").execute_in_process(instance=two_datasets.instance)
    assert {evaluation.asset_key.to_user_string() for evaluation in checks.get_asset_check_evaluations()} == {
        *("aged_events", "notes/aged_events")
    }
    config = {"ops": {"prune_runs": {"config": {"older_than_days": -1}}}}
    prune = two_datasets.definitions.resolve_job_def("prune_job")
    assert prune.execute_in_process(instance=two_datasets.instance, run_config=config).success
    left = {run.run_id for run in two_datasets.instance.get_runs()}
    assert not left & {*old, checks.run_id}
    assert left >= set(kept)
    for asset in ASSETS:
        assert [two_datasets.latest(f"notes/{asset}", KEYS[0]), two_datasets.latest(asset, KEYS[0])] == kept


def test_pruning_keeps_the_latest_materializations_of_a_dataset_called_alike_in_another_code_location(
    two_datasets: Two, clean: pytest.MonkeyPatch, tmp_path: Path
):
    two_datasets.events.add(1)
    there = two_datasets.run("events", KEYS[0]).run_id
    here = tmp_path / "here.yaml"
    here.write_text(FILE.replace(", asset_keys: bare", ""))
    clean.setenv("DATASETS_FILE", str(here))
    prune = build_definitions(*load_datasets()).resolve_job_def("prune_job")
    config = {"ops": {"prune_runs": {"config": {"older_than_days": -1}}}}
    assert prune.execute_in_process(instance=two_datasets.instance, run_config=config).success
    assert [two_datasets.latest(asset, KEYS[0]) for asset in ASSETS] == [there] * len(ASSETS)


def test_runs_from_before_the_file_are_those_of_the_dataset_with_bare_keys(
    two_datasets: Two, clean: pytest.MonkeyPatch
):
    two_datasets.events.add(1)
    with clean.context() as patch:
        patch.delenv("DATASETS_FILE")
        before = build_definitions(*load_datasets())
        job = before.resolve_job_def("archive_job")
        old = [job.execute_in_process(partition_key=KEYS[0], instance=two_datasets.instance).run_id for _ in range(2)]
    scheduler = Scheduler(two_datasets.instance, before)
    two_datasets.events.add(1)
    scheduler.in_flight(dg.DagsterRunStatus.QUEUED, partition=KEYS[0])
    assert two_datasets.scheduler("events").days() == []
    assert two_datasets.run("events", KEYS[0], ["aged_events"]).success
    config = {"ops": {"prune_runs": {"config": {"older_than_days": -1}}}}
    prune = two_datasets.definitions.resolve_job_def("prune_job")
    assert prune.execute_in_process(instance=two_datasets.instance, run_config=config).success
    left = {run.run_id for run in two_datasets.instance.get_runs()}
    assert (old[0] in left, old[1] in left) == (False, True)


def test_a_failed_restore_is_told_of_its_dataset_and_pruned_in_time(
    two_datasets: Two, webhook: Webhook, clean: pytest.MonkeyPatch
):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    sensor = Sensor(two_datasets.definitions, two_datasets.instance, "failed_runs")
    sensor.tick()
    restore = two_datasets.definitions.resolve_job_def("restore_job_notes")
    soon = {"ops": {"restore_days_notes": {"config": {"first_day": "soon"}}}}
    failed = restore.execute_in_process(instance=two_datasets.instance, run_config=soon, raise_on_error=False)
    assert not failed.success
    sensor.tick()
    (text,) = webhook.texts
    assert text.startswith("event_archive: notes (public.notes): failed.")
    prune = two_datasets.definitions.resolve_job_def("prune_job")
    config = {"ops": {"prune_runs": {"config": {"older_than_days": -1}}}}
    assert prune.execute_in_process(instance=two_datasets.instance, run_config=config).success
    assert two_datasets.instance.get_run_by_id(failed.run_id) is None


def test_an_alert_of_a_check_names_the_dataset(two_datasets: Two, webhook: Webhook, clean: pytest.MonkeyPatch):
    clean.setenv("ALERT_WEBHOOK_URL", webhook.url)
    two_datasets.events.add(1)
    two_datasets.definitions.resolve_job_def("check_job").execute_in_process(instance=two_datasets.instance)
    (text,) = webhook.texts
    assert 'events (public."Event"): 1 aged day' in text
