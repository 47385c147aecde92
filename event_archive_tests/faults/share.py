"""How many faults at random a test tries: all, or the share that FAULTS_SHARE says, since CI has less time."""

import os

_SHARE = float(os.environ.get("FAULTS_SHARE", "1"))


def share_of(number: int) -> int:
    """So many of a number of faults, one at least."""
    return max(1, round(number * _SHARE))
