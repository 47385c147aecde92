"""Numbers as people read them. Here: a count with its noun, a size. Not here: any message."""


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun: ``counted(1, "row is", "rows are")``."""
    return f"{number} {one if number == 1 else many}"


def size(size_bytes: float) -> str:
    """A number of bytes, in units of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError("unreachable")
