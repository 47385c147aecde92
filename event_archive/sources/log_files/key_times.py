"""When a file's entries were logged, as far as that is known before it is read: the time in its key.

Read strictly: a day of the calendar since 2000, with or without a time of day, or an epoch. Not here: the times of
entries.
"""

import re
from datetime import datetime

from event_archive.sources.instants import NoInstantError, check_plausible, of_epoch
from event_archive.sources.log_files.stores import Found

# Folders may be called as Hive calls them: year=2024/month=03.
_DAY = r"(?P<day>(?P<year>20\d\d)(?:(?P<mark>[-_.]?)\d\d(?P=mark)\d\d|(?:/(?:[A-Za-z]+=)?\d\d(?!\d)){2}))"
_HOUR, _MINUTE, _SECOND = (
    f"/(?:(?i:{names})=)?" for names in ("h|hh|hr|hour|time", "m|mm|mi|min|minute", "s|ss|sec|second")
)
# Behind a day or an hour may stand another date: a folder's file is called by it, or a file is of some days or hours.
_NO_DATE = r"(?!20\d\d[-_.]\d\d[-_.]\d\d)"
_BEFORE_CLOCK = rf"(?:[-_.T ]?{_NO_DATE}|{_HOUR}{_NO_DATE}(?!(?P=year)[-_.]\d\d))"
# Behind an hour's folder, only another folder is a minute: a file's number is none.
_IN_FOLDERS = rf"{_MINUTE}[0-5]\d(?=/)(?:{_SECOND}[0-5]\d(?=/))?"
_MINUTES = rf"[-_.:]?{_NO_DATE}\d\d(?:[-_.:]?\d\d)?|{_IN_FOLDERS}"
_CLOCK = rf"{_BEFORE_CLOCK}(?P<clock>\d\d(?:{_MINUTES})?)(?:\.\d+)?Z?"
_END = r"(?![0-9A-Za-z])"
_TIMES = re.compile(rf"(?<!\d){_DAY}(?:{_CLOCK})?{_END}|(?<![0-9A-Za-z])(?P<epoch>1\d{{9}}|1\d{{12}}){_END}", re.ASCII)
"""Seconds or milliseconds since 1970 begin with a 1 until 2033, and no day of this century does."""
_OTHERS = re.compile(r"\D", re.ASCII)


def log_time(file: Found, now: datetime) -> datetime:
    """The last time in a file's key, in UTC; where it holds none, the time at which the file was written.

    Args:
        file: as it was listed.
        now: more than a year ahead of it, a time is none.
    """
    for found in reversed([*_TIMES.finditer(file.key)]):
        try:
            return check_plausible(_instant(found), now)
        except (NoInstantError, ValueError):
            continue
    return file.modified


def _instant(found: re.Match[str]) -> datetime:
    if found["epoch"]:
        return of_epoch(int(found["epoch"]))
    day, clock = (_OTHERS.sub("", found[name] or "") for name in ("day", "clock"))
    try:
        return _of_digits(day + clock.ljust(6, "0"))
    except ValueError:
        # What follows the day is no time of day, but a number.
        return _of_digits(day + "000000")


def _of_digits(digits: str) -> datetime:
    return datetime.strptime(f"{digits}+0000", "%Y%m%d%H%M%S%z")
