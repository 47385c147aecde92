"""Findings, the topics that yield them, and going through the topics in order. Not here: any check.

A topic is a generator that yields a finding for each of its checks, in order. It need not catch errors: one becomes the
finding of the check that was being made.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from event_archive.config.environment import Settings
from event_archive.errors import EventArchiveError, kind_and_place

_SOON_SECONDS = 2.0
"""A clock that was read by an answer that took longer may be off by half of that time."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check.

    Attributes:
        name: of the check; scripts rely on it.
        status: ``bad`` where days will fail; ``warning`` where they may, or somebody should look; ``skipped`` where the
            check could not be made, because of another finding.
        message: what was found; an error's says what to do as well. No secrets.
        remedy: what to do.
    """

    name: str
    status: Literal["good", "warning", "bad", "skipped"]
    message: str
    remedy: str = ""


@dataclass
class Patient:
    """What checks learn for later ones.

    Attributes:
        load: loads the settings of the dataset that is looked at.
        settings: set by the check ``settings``, which every topic that reads them needs.
        clocks: how many seconds other clocks are ahead of this machine's, by whose they are.
        problems: of the settings, in words.
    """

    load: Callable[[], Settings]
    settings: Settings = field(init=False)
    clocks: dict[str, float] = field(default_factory=dict)
    problems: str = ""

    def read_clock(self, whose: str, there: float, seconds: float) -> None:
        """Takes an answer that has just come for what another clock says, if it came soon.

        Args:
            whose: the clock.
            there: its time, in seconds since 1970.
            seconds: how long the answer took.
        """
        if seconds <= _SOON_SECONDS:
            self.clocks[whose] = there - (time.time() - seconds / 2)


@dataclass(frozen=True, slots=True)
class Topic:
    """Checks that are made together.

    Attributes:
        checks: their names, in the order in which they are made.
        needs: a check of an earlier topic; where that is bad or skipped, these are skipped.
        examine: yields their findings.
    """

    checks: tuple[str, ...]
    needs: str | None
    examine: Callable[[Patient], Iterator[Finding]]


def go_through(topics: Sequence[Topic], load: Callable[[], Settings]) -> Iterator[Finding]:
    """Yields one finding for every check of every topic, in order. Raises nothing.

    Args:
        topics: what to look at.
        load: the settings of the dataset.
    """
    patient = Patient(load)
    failed: set[str] = set()
    for topic in topics:
        for finding in _of(topic, patient, failed):
            if finding.status in ("bad", "skipped"):
                failed.add(finding.name)
            yield finding


def _of(topic: Topic, patient: Patient, failed: set[str]) -> Iterator[Finding]:
    left = list(topic.checks)
    because = topic.needs
    if because not in failed:
        try:
            for finding in topic.examine(patient):
                left.remove(finding.name)
                yield finding
        except EventArchiveError as error:
            because = left.pop(0)
            yield Finding(because, "bad", str(error))
        except Exception as error:  # noqa: BLE001 (hides nothing: it is a finding, and the exit code says so)
            because = left.pop(0)
            words = f"the check itself failed: {kind_and_place(error)}"
            yield Finding(because, "bad", words, "Report it as a bug.")
    for name in left:
        yield Finding(name, "skipped", f"not looked at, because of {because}")
