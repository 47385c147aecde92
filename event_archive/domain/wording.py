"""Numbers as people read them: a count with its noun, a size, a duration, a wait. Not here: any message."""


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun: ``counted(1, "row is", "rows are")``."""
    return f"{number:,} {one if number == 1 else many}"


def size(size_bytes: float) -> str:
    """A number of bytes, in units of 1,000."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    for unit in ("kB", "MB"):
        size_bytes /= 1000
        if round(size_bytes, 1) < 1000:
            return f"{size_bytes:.1f} {unit}"
    return f"{size_bytes / 1000:.1f} GB"


def duration(seconds: float) -> str:
    """A duration to the second, to the minute from an hour on: ``12 s``, ``3 min 5 s``, ``2 h 10 min``."""
    whole = max(1, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, of_hour = divmod(minutes, 60)
    if hours:
        return f"{hours} h {of_hour} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def took(seconds: float) -> str:
    """As ``duration``, but ``< 1 s`` for less than a second."""
    return duration(seconds) if seconds >= 1 else "< 1 s"


def oldest_for(seconds: float) -> str:
    """Behind a number of things that wait: ``, the oldest for 12 s``; nothing where none does."""
    if not seconds:
        return ""
    return ", the oldest for " + ("less than 1 s" if seconds < 1 else f"{seconds:,.0f} s")
