"""Log files with entries of days that are archived, or become aged, are replayed, or are loaded by several at once."""

import threading
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from event_archive.domain.dataset import TableName
from event_archive.domain.days import now_utc
from event_archive.sources.log_files import ingest
from event_archive.sources.log_files.replay import replay
from event_archive.sources.rejected import RejectedRecords
from event_archive.sources.runs import NONE_AGED, AgedTimes, aged_times
from event_archive_tests.fixtures.ages import aged_until
from event_archive_tests.fixtures.log_files import Logs, archived_logs, entry, ndjson

pytestmark = pytest.mark.slow


# 13: several workers, and 16: two that try again
def test_two_that_replay_at_once_land_each_entry_once(logs: Logs, tmp_path: Path):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("timestamp: [time, when]\nmessage: msg\n")
    later = {"msg": "later", "when": "2024-03-01T11:00:30Z"}
    logs.write("a.log", ndjson(*[later] * 300, {"msg": "never"}))
    logs.write("b.log", ndjson(*[later] * 300))
    logs.run()
    settings = logs.settings(logs_mapping=mapping)

    def try_again() -> None:
        with settings.postgres.session() as session:
            found.append(RejectedRecords(session, TableName("public", "rejected_records")).replay(replay(settings)).new)

    found: list[int] = []
    both = [threading.Thread(target=try_again) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sum(found) == len(logs.rows()) == 600
    assert logs.files() == [("COMPLETED", 300, 1), ("COMPLETED", 300, 0)]
    assert logs.rejected() == 1


def test_places_that_overlap_share_their_files(logs: Logs):
    logs.write("app/a.log", ndjson(entry(1)))
    logs.write("app-2/b.log", ndjson(entry(2)))
    app = f"file://{logs.folder}/app"
    assert logs.run(logs_url=app).files == 1
    assert logs.run().files == 1
    logs.write("app/a.log", ndjson(entry(3)))
    assert logs.run().files == 1
    assert logs.run(logs_url=app).files == 0
    assert logs.rows() == ["request 2", "request 3"]


def test_processes_with_a_limit_load_no_more_than_it_each(logs: Logs):
    for number in range(12):
        logs.write(f"{number:02}.log", ndjson(entry(number)))
    loaded: list[int] = []
    workers = [threading.Thread(target=lambda: loaded.append(logs.run(limit=3).files)) for _ in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert loaded == [3] * 3
    assert sorted(status for (status,) in logs.files("status")) == ["COMPLETED"] * 9 + ["PENDING"] * 3


def test_a_day_that_becomes_aged_while_a_run_goes_on_is_left_out_from_then_on(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
):
    for name in ("a.log", "b.log"):
        logs.write(name, ndjson(entry(1)))
    logs.run()
    for name in ("a.log", "b.log"):
        logs.write(name, ndjson(entry(1), entry(2)))

    def aged(*_: object, **__: object) -> AgedTimes:
        return aged_until(2 if "request 2" in logs.rows() else 1)

    monkeypatch.setattr(ingest, "aged_times", aged)
    monkeypatch.setattr(ingest, "aged_by_now", aged)
    monkeypatch.setattr(ingest, "AGES_SECONDS", 0)
    counts = logs.run().counts
    assert (counts.new, counts.too_old) == (2, 2)


def test_a_file_that_could_not_be_loaded_until_its_day_was_aged_is_loaded_all_the_same(logs: Logs):
    """Nothing of it can be archived yet: it was listed in time, and never loaded."""
    datasets = [archived_logs("3 days")]
    logs.write("a.log", ndjson(entry(1)))
    logs.run(datasets=datasets)
    logs.write("b.log", b"\x1f\x8b damaged")
    logs.run(datasets=datasets)
    day = now_utc() - timedelta(days=5)
    whole = ndjson(*(entry(number, time=(day - timedelta(days=ago)).isoformat()) for number, ago in ((2, 0), (3, 3))))
    logs.write("b.log", whole)
    logs.database.execute("UPDATE processed_files SET created_at = now() - interval '4 days' WHERE key LIKE '%b.log'")
    logs.database.execute("UPDATE log_listing SET first_pass_at = now() - interval '9 days'")
    counts = logs.run(datasets=datasets).counts
    assert (counts.new, counts.too_old) == (1, 1)
    assert logs.rows() == ["request 1", "request 2"]


def come_of_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 March is aged by the end of the first load, and was not when the run looked."""
    days = [aged_until(1)]

    def aged_by_now(*_: object, **__: object) -> AgedTimes:
        days[0] = aged_until(2)
        return days[0]

    monkeypatch.setattr(ingest, "aged_times", lambda *_: days[0])
    monkeypatch.setattr(ingest, "aged_by_now", aged_by_now)


def test_a_day_that_becomes_aged_while_a_new_version_is_loaded_keeps_its_rows(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
):
    logs.write("a.log", ndjson(entry(1)))
    logs.run()
    former = logs.rows("id, message")
    logs.write("a.log", ndjson(entry(1), entry(2), entry(3, time=1_709_377_200_000)))
    # From now on a night may archive the day, whose rows would be others once the load commits.
    come_of_age(monkeypatch)
    totals = logs.run()
    assert logs.rows("id, message")[:1] == former
    assert (totals.counts.new, totals.counts.too_old, totals.removed, totals.files) == (1, 2, 0, 1)
    assert logs.files() == [("COMPLETED", 1, 0)]


def test_a_day_that_was_purged_just_before_a_new_version_is_loaded_does_not_come_back(
    logs: Logs, monkeypatch: pytest.MonkeyPatch
):
    """Which days are aged was asked a moment ago; none of the former version's rows is left that could tell."""
    logs.write("a.log", ndjson(entry(1)))
    logs.run()
    logs.database.execute("DELETE FROM logs")
    logs.write("a.log", ndjson(entry(1), entry(2), entry(3, time=1_709_377_200_000)))
    come_of_age(monkeypatch)
    counts = logs.run().counts
    assert (counts.new, counts.too_old) == (1, 2)
    assert logs.files() == [("COMPLETED", 1, 0)]


def test_an_entry_from_before_the_first_day_that_is_archived_is_not_too_old(logs: Logs):
    """It is in no file, and never purged; a new version of its file replaces it."""
    dataset = replace(archived_logs("3 days"), start=date(2024, 3, 2))
    logs.write("a.log", ndjson(entry(1)))
    logs.run(datasets=[dataset])
    for number in (2, 3):
        logs.write("b.log", ndjson(entry(number), entry(4, time=1_709_377_200_000)))
        totals = logs.run(datasets=[dataset])
        assert (totals.counts.new, totals.counts.too_old, totals.removed) == (1, 1, number - 2)
    assert logs.rows() == [entry(number)["msg"] for number in (1, 3)]


# 19: settings that change
@pytest.mark.parametrize("change", ["LOGS_TIMEZONE", "LOGS_MAPPING"])
def test_what_other_settings_read_as_aged_keeps_the_row_that_it_has(logs: Logs, tmp_path: Path, change: str):
    dataset = archived_logs("3 days")
    with logs.settings().postgres.session() as session:
        aged = aged_times(session, [dataset], dataset.table)
    assert aged != NONE_AGED

    def at(number: int) -> dict[str, str]:
        # Of the first second that is not aged; by another zone, or another field, it is.
        time = (aged.until + timedelta(minutes=number)).replace(tzinfo=None).isoformat()
        return {"msg": f"{number}", "time": time, "started": "2024-03-01T00:00:00Z" if number < 9 else time}

    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("timestamp: started\nmessage: msg\n")
    changed = {"logs_timezone": "Europe/Berlin"} if change == "LOGS_TIMEZONE" else {"logs_mapping": mapping}
    logs.run(datasets=[dataset])
    for number, others in enumerate([{}, changed, changed]):
        logs.write("a.log", ndjson(at(1), at(2), *(at(600 + of) for of in range(number + 1))))
        totals = logs.run(datasets=[dataset], **others)
        assert (totals.counts.too_old, totals.removed) == (2 if others else 0, number)
        assert logs.rows() == ["1", "2", *(f"{600 + of}" for of in range(number + 1))]
