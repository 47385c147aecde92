"""What a server may know of a transaction whose commit got no answer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from event_archive.postgres.lost import Mark

AT = datetime(2024, 3, 1, tzinfo=UTC)
LATER = AT + timedelta(minutes=1)
FORMER = Mark(700, "0000000F", Decimal(1000), Decimal(500), AT - timedelta(days=1), AT)
NEXT, AFTER_NEXT = "00000010", "00000011"


@pytest.mark.parametrize(
    ("now", "may_be_known"),
    [
        ({}, True),
        ({"replayed": None, "started": LATER}, True),
        ({"replayed": Decimal(1000), "started": LATER}, True),
        ({"replayed": Decimal(999), "started": LATER}, False),
        ({"replayed": Decimal(999)}, False),
        ({"timeline": NEXT, "replayed": Decimal(1000)}, True),
        ({"timeline": NEXT, "replayed": Decimal(999)}, False),
        ({"timeline": NEXT, "replayed": Decimal(2000), "started": LATER}, False),
        ({"timeline": NEXT, "replayed": None, "started": LATER}, False),
        ({"timeline": AFTER_NEXT, "replayed": Decimal(2000)}, False),
        ({"timeline": "0000000E", "replayed": Decimal(2000)}, False),
    ],
    ids=[
        "it went on",
        "it was shut down in order",
        "it crashed behind it",
        "it crashed before it",
        "a backend crashed before it",
        "a standby that had it",
        "a standby that never had it",
        "a standby that has crashed since",
        "a standby that was restarted since",
        "a standby of a standby",
        "the server from before a failover",
    ],
)
def test_a_number_is_only_asked_for_where_no_other_transaction_can_have_it(now: dict[str, object], may_be_known: bool):
    assert FORMER.may_be_known(replace(FORMER, **now)) == may_be_known  # type: ignore[arg-type]
