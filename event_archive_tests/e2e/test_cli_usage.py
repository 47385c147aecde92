"""Wrong usage, help and versions: what a command line that does nothing says."""

import pytest

from event_archive.domain.days import ONE_DAY
from event_archive_tests.fixtures.installation import Commands, Installation, run_cli
from event_archive_tests.fixtures.three_days import KEYS, TODAY, YOUNG, files

NEXT_YEAR = (TODAY + 400 * ONE_DAY).isoformat()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", YOUNG.isoformat()], f"{YOUNG} is not aged. With a retention of 1 year it comes of age on"),
        (["run", KEYS[0], NEXT_YEAR], f"{NEXT_YEAR} is not aged"),
        (["run", "9999-12-31"], "9999-12-31 is not aged. With a retention of 1 year it does not come of age"),
        (["run", "2014-12-31"], "2014-12-31 lies before the first day that is archived, 2015-01-01"),
        (["run", "yesterday"], "'yesterday' is not a day; write it as YYYY-MM-DD, like 2024-03-01"),
        (["run", "2023-02-29"], "'2023-02-29' is not a day"),
        (["run", "20240301"], "'20240301' is not a day"),
        (["run", "--from", "x"], "'x' is not a day"),
        (["run", "--to", NEXT_YEAR], f"{NEXT_YEAR} is not aged"),
        (["run", "--from", KEYS[1], "--to", KEYS[0]], f"--from {KEYS[1]} lies after --to {KEYS[0]}"),
        (["run", KEYS[0], "--from", KEYS[0]], "Name days, or give a range"),
        (["run", "--no-such-option"], "No such option"),
        (["no-such-command"], "No such command"),
        (["days", "--from", "x"], "'x' is not a day"),
        (["ingest", "logs", "--file", "/dev/null"], "--file must name a file"),
        (["demo", "--port", "3001"], "--port is the UI's: give --ui, too"),
        (["ingest", "stream", "--status", "--drain"], "--status and --drain exclude one another"),
        (["rejected", "--replay", "--limit", "1"], "--limit is for listing alone"),
        (["rejected", "--explain", "1", "--limit", "1"], "--limit is for listing alone"),
        (["rejected", "--limit", "99999999999999999999"], "99999999999999999999 is not in the range"),
        (["rejected", "--explain", "99999999999999999999"], "99999999999999999999 is not in the range"),
        (["rejected", "--explain", "1", "--source", "api"], "--explain and --source exclude one another"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_exits_with_2_and_does_nothing(
    local_installation: Installation, command: Commands, arguments: list[str], words: str
):
    local_installation.add(1)
    local_installation.add(1, day=YOUNG)
    done = command(*arguments)
    assert done.code == 2
    assert words in done.error
    assert words in done.stderr
    assert local_installation.count() == 2
    assert not files(local_installation)


def test_the_help_lists_commands_as_they_are_needed_each_in_a_whole_sentence(command: Commands):
    shown = [command(*group, "--help").stdout.partition("Commands:\n")[2] for group in ((), ("ingest",))]
    listed = [line.split(maxsplit=1) for text in shown for line in text.splitlines()]
    assert [name for name, _ in listed][:4] == ["doctor", "run", "days", "verify"]
    assert [words for _, words in listed if not words.endswith(".") or words.endswith("...")] == []


@pytest.mark.parametrize("group", [(), ("ingest",)])
def test_where_no_command_is_named_the_json_line_is_a_sentence_not_the_help(command: Commands, group: tuple[str, ...]):
    done = command(*group)
    assert (done.code, [line["error"] for line in done.lines]) == (2, ["No command was named; --help lists them."])
    assert "Commands:" in done.stderr


def test_help_and_version_need_no_configuration(command: Commands):
    assert "Exit" not in command("--help").stderr
    done = command("run", "--help")
    assert (done.code, done.stderr) == (0, "")
    assert "--dry-run" in done.stdout


def test_the_entry_point_is_installed_under_its_name():
    done = run_cli("--help")
    assert (done.code, done.stderr) == (0, "")
    assert {"run", "days", "demo"} <= {line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")}
