"""What the fault suite has survived, counted by kind for the summary at its end."""

from collections import Counter

faults_survived: Counter[str] = Counter()


def survived(kind: str) -> None:
    """Counts one fault after which everything was right."""
    faults_survived[kind] += 1
