"""Which clock is off. Not here: how the others are read."""

from collections.abc import Iterator, Mapping

from event_archive.doctor.findings import Finding, Patient

CLOCK = ("clock",)

SUSPICIOUS_SECONDS = 5
"""Clocks that NTP sets differ by far less."""
BAD_SECONDS = 5 * 60
"""From here on services refuse signatures and tokens, and a day at the edge may be aged by one clock alone."""


def clock(patient: Patient) -> Iterator[Finding]:
    """This machine's clock, PostgreSQL's and the Blob service's, as far as they could be read."""
    if patient.clocks:
        yield compare(patient.clocks)
    else:
        yield Finding("clock", "skipped", "no other clock could be read")


def compare(ahead_seconds: Mapping[str, float]) -> Finding:
    """Says which clock is off: of three, the one that the others contradict; of two, nobody knows.

    Args:
        ahead_seconds: of this machine's clock, by whose clock it is; at least one.
    """
    readings = {"this machine": 0.0, **ahead_seconds}
    apart_seconds = max(readings.values()) - min(readings.values())
    if apart_seconds <= SUSPICIOUS_SECONDS:
        return Finding("clock", "good", f"{', '.join(readings)}: within {SUSPICIOUS_SECONDS} s of one another")
    right = "this machine"
    if len(readings) > 2:
        right = sorted(readings, key=readings.__getitem__)[len(readings) // 2]
    differences = {name: reading - readings[right] for name, reading in readings.items() if name != right}
    off = {name: seconds for name, seconds in differences.items() if abs(seconds) > SUSPICIOUS_SECONDS}
    others = "the others" if len(readings) > 2 and len(off) == 1 else right
    words = [
        f"{name} is {abs(seconds):,.0f} s {'ahead of' if seconds > 0 else 'behind'} {others}"
        for name, seconds in off.items()
    ]
    if not off:
        first, last = min(readings, key=readings.__getitem__), max(readings, key=readings.__getitem__)
        words = [f"{last} is {apart_seconds:,.0f} s ahead of {first}"]
    is_bad = apart_seconds > BAD_SECONDS
    return Finding("clock", "bad" if is_bad else "warning", "; ".join(words), "Set the clock, by NTP.")
