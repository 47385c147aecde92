"""Nights of ``event-archive run`` in which not every day can be done: whose turn it is, and what is remembered."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from event_archive.domain.days import ONE_DAY
from event_archive.nightly import day as nightly_day
from event_archive.nightly.attempts import attempts_path
from event_archive.postgres import connecting
from event_archive_tests.fixtures.installation import Commands, Installation, clean_environment
from event_archive_tests.fixtures.pipeline import DAY

pytestmark = pytest.mark.slow

DAYS = [DAY + n * ONE_DAY for n in range(6)]
KEYS = [day.isoformat() for day in DAYS]
ONE_DAY_FITS = "1 second"

# The whole budget, whatever the day: the next one does not begin.
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.1); RETURN NULL; END $$;
CREATE TRIGGER slow BEFORE DELETE ON "Event" FOR EACH STATEMENT EXECUTE FUNCTION slow()
"""
FAILING = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {action}; RETURN OLD; END $$;
CREATE TRIGGER fail BEFORE DELETE ON "Event" FOR EACH ROW WHEN (OLD.created_at::date = '{day}') EXECUTE FUNCTION fail()
"""


@pytest.fixture
def filled(local_installation: Installation) -> Installation:
    for day in DAYS:
        local_installation.add(1, day=day)
    return local_installation


def remembered(installation: Installation) -> dict[str, dict[str, object]]:
    """What lies in the lake for the next run; nothing where there is no file."""
    file = installation.lake.stat(attempts_path(installation.dataset))
    if file is None:
        return {}
    with installation.lake.read(file) as blocks:
        days: dict[str, dict[str, object]] = json.loads(b"".join(blocks))["days"]
    return days


def test_a_held_day_takes_no_budget_from_the_others(filled: Installation, command: Commands):
    filled.database.execute(SLOW)
    assert command("hold", KEYS[0], "--reason", "a lawsuit").code == 0
    done = [next(iter(command("run", RUN_BUDGET=ONE_DAY_FITS).days)) for _ in range(2)]
    assert done == KEYS[1:3]
    last = command("run")
    assert list(last.days) == [*KEYS[3:], KEYS[0]]
    assert last.days[KEYS[0]]["outcome"] == "held"
    assert filled.count() == 1


def test_a_day_that_fails_every_night_starves_nobody_and_has_its_turn(
    filled: Installation, command: Commands, monkeypatch: pytest.MonkeyPatch
):
    filled.database.execute(SLOW)
    filled.database.execute(FAILING.format(day=DAY, action="RAISE 'never'"))
    tonight, nights = datetime.now(UTC), []
    for night in range(len(DAYS) + 2):
        # Which place is the failed day's goes by the hour, and a night comes 24 of them later.
        monkeypatch.setattr("event_archive.domain.days.now_utc", lambda night=night: tonight + night * ONE_DAY)
        nights.append(command("run", RUN_BUDGET=ONE_DAY_FITS))
    assert all(len(night.days) == 1 for night in nights)
    assert filled.count() == 1
    codes = [night.code for night in nights if KEYS[0] in night.days]
    assert len(codes) >= 2
    assert set(codes) == {1}
    assert remembered(filled)[KEYS[0]]["failed"] is True
    (listed,) = [day for day, line in command("days").days.items() if line["outcome"] == "failed"]
    assert listed == KEYS[0]
    filled.database.execute('DROP TRIGGER fail ON "Event"')
    assert command("run").code == 0
    assert remembered(filled) == {}
    assert filled.count() == 0


def test_a_day_whose_connection_is_cut_does_not_end_the_night(
    filled: Installation, command: Commands, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(nightly_day, "_RETRY_AFTER_SECONDS", (0, 0))
    cut = "PERFORM pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())"
    filled.database.execute(FAILING.format(day=DAYS[1], action=cut))
    done = command("run")
    assert done.code == 1
    assert [done.days[key]["outcome"] for key in KEYS] == ["purged", "failed", *["purged"] * 4]
    assert "terminating connection" in done.days[KEYS[1]]["error"]
    assert (done.end["outcome"], done.end["failed"], done.end["deleted"]) == ("failed", 1, 5)
    assert filled.count() == 1


def test_days_that_were_not_tried_are_told_where_there_are_any(
    filled: Installation, command: Commands, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(nightly_day, "_RETRY_AFTER_SECONDS", (0, 0))
    monkeypatch.setattr(connecting, "_ATTEMPTS", 1)
    database, door = filled.database, filled.database.server.socket_dir / f"door_{filled.database.name}"
    # No row goes to the program: it reads none, and PostgreSQL would say so where it ends first.
    close = (
        f"COPY (SELECT WHERE false) TO PROGRAM 'rm -f {door}'; "
        "PERFORM pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())"
    )
    database.execute(FAILING.format(day=DAYS[0], action=close))
    told = "A service is out of reach; the days that are left were not tried."
    for days, error in (
        (KEYS[:1], "1 of 1 day failed. A service is out of reach."),
        (KEYS[:2], f"1 of 1 day failed. {told}"),
    ):
        door.symlink_to(".")
        done = command("run", *days, PG_CONNECTION_STRING=f"host={door} dbname={database.name} user=postgres")
        assert (done.code, list(done.days), done.end["error"]) == (1, KEYS[:1], error)


def test_what_was_tried_is_remembered_only_where_the_next_run_has_to_know(filled: Installation, command: Commands):
    filled.database.execute(SLOW)
    assert command("run", "--dry-run").code == 0
    assert command("run", KEYS[5]).code == 0
    assert remembered(filled) == {}
    filled.add(1, day=DAYS[5])
    # A dry run is a try: the next one goes on with other days.
    assert list(command("run", RUN_BUDGET=ONE_DAY_FITS, DRY_RUN="true").days) == KEYS[:1]
    ((key, attempt),) = remembered(filled).items()
    assert (key, attempt["failed"]) == (KEYS[0], False)
    # A machine's clock may be set while a test runs.
    assert abs(datetime.now(UTC) - datetime.fromisoformat(str(attempt["at"]))) < timedelta(hours=1)
    # A day that fills up again waits for those that have not had their turn, but for its place in five.
    filled.add(1, prefix="late")
    done = [next(iter(command("run", RUN_BUDGET=ONE_DAY_FITS).days)) for _ in range(3)]
    assert len(set(done) & set(KEYS[1:])) >= 2
    assert command("run").code == 0
    assert (remembered(filled), filled.count()) == ({}, 0)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"days": {"x": {}}}', b'{"days": {"2024-03-01": 1}}', b"\xff\xfe"])
def test_a_damaged_memory_only_costs_the_order(filled: Installation, command: Commands, content: bytes):
    with filled.lake.write(attempts_path(filled.dataset), replaces=None) as upload:
        upload.write(content)
        upload.commit({})
    done = command("run")
    assert (done.code, list(done.days)) == (0, KEYS)
    assert any("days are done as if none was ever tried" in str(line.get("message")) for line in done.lines)


def test_the_plan_names_the_days_in_their_order_and_touches_nothing(filled: Installation, command: Commands):
    filled.add(2, day=DAYS[1], prefix="more")
    command("hold", KEYS[0], "--reason", "a lawsuit")
    rows = filled.everything()
    done = command("run", "--plan")
    assert (done.code, done.stderr) == (0, "")
    *days, totals = done.lines
    assert [(line["day"], line["rows"], line["outcome"]) for line in days] == [
        (key, 3 if key == KEYS[1] else 1, "planned") for key in [*KEYS[1:], KEYS[0]]
    ]
    assert (totals["days"], totals["rows"], totals["outcome"]) == (6, 8, "planned")
    assert totals["seconds"] == pytest.approx(sum(line["seconds"] for line in days), abs=0.01)
    assert totals["seconds"] >= 0.9, "days of few rows take time, too"
    assert filled.everything() == rows
    assert list(filled.lake.list(filled.dataset.folder)) == []
    shown = command("run", "--plan", "--to", KEYS[1], LOG_FORMAT="console").stdout
    assert "a run would do 2 days in this order: 4 rows" in shown
    assert {line.split(maxsplit=4)[-1] for line in shown.splitlines()[1:3]} == {"< 1 s"}
    assert "RUN_BUDGET" not in shown
    budgeted = command("run", "--plan", LOG_FORMAT="console", RUN_BUDGET="2 hours").stdout
    assert "no day begins once RUN_BUDGET (2:00:00) has passed" in budgeted
    assert command("run").end["bytes"] == pytest.approx(totals["bytes"], rel=0.3)


def test_where_no_day_is_aged_a_run_its_plan_and_the_days_say_by_which_retention(
    filled: Installation, command: Commands
):
    told = "UTC, with a retention of 90 years."
    for line in (("run", "--plan"), ("run",), ("days",)):
        done = command(*line, EVENT_RETENTION_PERIOD="90 years", ARCHIVE_START_DATE="1900-01-01", LOG_FORMAT="console")
        assert (done.code, told in done.stdout) == (0, True), line
        assert line == ("days",) or done.stdout.startswith("Nothing to do: no aged day has rows. ")


def test_a_run_imports_no_dagster(filled: Installation):
    script = """
import sys
sys.argv[1:] = ["run"]
try:
    from event_archive.cli import main
    main()
finally:
    imported = {name.partition(".")[0] for name in sys.modules}
    print(sorted(imported & {"dagster", "pyarrow", "rich", "azure", "requests"}), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(**filled.variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert filled.count() == 0


COMMANDS: list[tuple[list[str], dict[str, str], int]] = [
    (["run"], {}, 0),
    (["run", "--plan"], {}, 0),
    (["days"], {}, 0),
    (["verify"], {}, 1),
    (["restore", KEYS[0]], {}, 1),
    (["adopt", KEYS[0]], {}, 1),
    (["hold", KEYS[0], "--reason", "x"], {}, 0),
    (["release", KEYS[0]], {}, 0),
    (["doctor"], {}, 0),
    (["run", "tomorrow"], {}, 2),
    (["no-such-command"], {}, 2),
    (["run", "--from", "2014-01-01"], {}, 2),
    *(
        (command, {"PG_CONNECTION_STRING": "postgresql://me@127.0.0.1:9/events"}, 1)
        for command in (["run"], ["days"], ["holds"], ["hold", KEYS[0], "--reason", "x"])
    ),
    *((command, {"EVENT_RETENTION_PERIOD": "never"}, 2) for command in (["run"], ["days"], ["verify"], ["holds"])),
]


@pytest.mark.parametrize(("arguments", "variables", "code"), COMMANDS, ids=lambda value: str(value)[:40])
def test_without_a_terminal_every_command_writes_lines_of_one_shape(
    filled: Installation, command: Commands, arguments: list[str], variables: dict[str, str], code: int
):
    done = command(*arguments, **variables)
    assert done.code == code
    assert done.lines
    for line in done.lines:
        assert isinstance(line["outcome"], str)
        assert isinstance(line.get("error", ""), str)
    assert any("error" in line or line["outcome"] == "failed" for line in done.lines) == bool(code)
    assert "Traceback" not in done.said
