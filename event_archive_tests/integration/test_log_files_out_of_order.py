"""Log files where something is out of order: their numbers and names, the ledger, the clock, the settings.

The numbers in the comments are those of the hardest cases of an ingestion of log files.
"""

import pytest

from event_archive_tests.fixtures.log_files import Logs, entry, ndjson


# 8: what PostgreSQL cannot hold, and what it can
@pytest.mark.parametrize(
    ("content", "rows", "rejected"),
    [
        (b'{"time":1709290800000,"n":1e1000000000000000000,"m":NaN}\n' + ndjson(entry(1)), 1, 1),
        (b'[{"time":1709290800000,"n":NaN},{"time":1709290800000,"n":%s}]' % (b"1" * 5000), 1, 1),
    ],
    ids=["an exponent of 19 digits", "5,000 digits beside what is no JSON"],
)
def test_a_number_of_any_size_ends_no_run(logs: Logs, content: bytes, rows: int, rejected: int):
    logs.write("a.log", content)
    logs.run()
    assert logs.files() == [("COMPLETED", rows, rejected)]
