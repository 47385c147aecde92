"""The time in a log file's key."""

from datetime import UTC, datetime

import pytest

from event_archive.sources.log_files.key_times import log_time
from event_archive.sources.log_files.stores import Found

MODIFIED = datetime(2021, 5, 5, 5, tzinfo=UTC)
NOW = datetime(2024, 6, 1, tzinfo=UTC)


def told(key: str) -> str | None:
    """The time in a key, None where it holds none."""
    found = log_time(Found(key, "etag", 1, MODIFIED), NOW)
    return None if found == MODIFIED else found.strftime("%Y-%m-%dT%H:%M:%S")


@pytest.mark.parametrize(
    ("key", "time"),
    [
        ("2024/03/01/3f2a9c.gz", "2024-03-01T00:00:00"),
        ("app/2024/03/01/05/12ab34.gz", "2024-03-01T05:00:00"),
        ("app/year=2024/month=03/day=01/hour=05/part-1.json", "2024-03-01T05:00:00"),
        ("app/dt=2024-03-01/hour=05/part-1.json", "2024-03-01T05:00:00"),
        ("2024-03-01T05:06:07Z.log", "2024-03-01T05:06:07"),
        ("2024-03-01T05-06-07.123Z.log", "2024-03-01T05:06:07"),
        ("web_20240301T0506Z_1.2.3.4.gz", "2024-03-01T05:06:00"),
        ("20240301-05", "2024-03-01T05:00:00"),
        ("app.log-20240301", "2024-03-01T00:00:00"),
        ("app.log-2024030105.gz", "2024-03-01T05:00:00"),
        ("app-20240301050607.gz", "2024-03-01T05:06:07"),
        ("EXAMPLE.2024-03-01-05.a1b2c3.gz", "2024-03-01T05:00:00"),
        ("2024-03-01-05-12-33-7B4A9FABBEXAMPLE", "2024-03-01T05:12:33"),
        ("2024/03/01/04/stream-1-2024-03-01-05-12-33-12345678-90ab", "2024-03-01T05:12:33"),
        ("app.2024.03.01.log", "2024-03-01T00:00:00"),
        ("access20240301.log", "2024-03-01T00:00:00"),
        ("host-1709290800.log", "2024-03-01T11:00:00"),
        ("host-1709290800123.log", "2024-03-01T11:00:00"),
        ("app.log-20240301-1709290800", "2024-03-01T11:00:00"),
        ("2024-03-01-42.log", "2024-03-01T00:00:00"),
        ("2024-03-01-1234567.log", "2024-03-01T00:00:00"),
        ("2024/02/29/a.log", "2024-02-29T00:00:00"),
        ("2024/03/01/2024-03-01-05.log", "2024-03-01T05:00:00"),
        ("2024/03/01/2024-03-02T05:12:00Z.log", "2024-03-02T05:12:00"),
        ("dt=2024-03-01/2024_03_01.log", "2024-03-01T00:00:00"),
        ("2024/03/2024-03-04.log", "2024-03-04T00:00:00"),
        ("year=2024/month=03/2024-03-04-05.gz", "2024-03-04T05:00:00"),
        ("2024/03/01/2024-03.log", "2024-03-01T00:00:00"),
        ("app_2024-03-01_2024-03-02.log", "2024-03-02T00:00:00"),
        ("app-2024-03-01-2024-03-02.gz", "2024-03-02T00:00:00"),
        ("app-20240301-20240302.gz", "2024-03-02T00:00:00"),
        ("logs/2024-03-01-00-2024-03-01-01.log", "2024-03-01T01:00:00"),
        ("2024-03-01T00_2024-03-01T01.log", "2024-03-01T01:00:00"),
        ("app_2024-03-01_2024.log", "2024-03-01T20:24:00"),
        ("app-2024-03-01-2015.10.log", "2024-03-01T20:15:10"),
        ("2024/03/01/2010-00.json.gz", "2024-03-01T20:10:00"),
    ],
)
def test_a_time_in_the_key_is_read(key: str, time: str):
    assert told(key) == time


@pytest.mark.parametrize(
    "key",
    [
        *("app.log", "app.log.1", "v1.20.3/app.log", "2023/02/29/a.log", "app-20241399.log", "12024-03-01.log"),
        *("2024-03/01.log", "2024/3/1/a.log", "1999-12-31.log", "app-2023120.log", "x1709290800.log", "ä/日本.log"),
        *("17092908001.log", "2030-01-01.log", "9a2024030-1.gz", "20240301ab.gz", ""),
    ],
)
def test_what_is_no_time_is_none(key: str):
    assert told(key) is None


def test_where_the_last_time_is_none_the_one_before_it_counts():
    assert told("2024/03/01/app-20991231.gz") == "2024-03-01T00:00:00"


@pytest.mark.timeout(10)
def test_a_key_of_any_length_is_read_at_once():
    for key in ("20" * 512, "2024/" * 200, "a=" * 500, "2024-03-01" + "_" * 1000, "1" * 1024, "2024/" + "a" * 1000):
        told(key)
