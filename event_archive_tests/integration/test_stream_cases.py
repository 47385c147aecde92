"""The hardest cases of a stream's consumer, on a real server each; the numbers are those of the list of cases."""

from event_archive_tests.fixtures.valkey import GROUP, KEY, Stream, position


def test_entries_become_rows_and_are_acknowledged(each_stream: Stream):
    each_stream.add(*map(position, range(2500)))
    totals = each_stream.run()
    assert (totals.counts.taken, totals.counts.new, totals.batches) == (2500, 2500, 3)
    assert each_stream.rows() == list(range(2500))
    assert each_stream.pending() == {}
    assert each_stream.consumers() == [], "it has left"
