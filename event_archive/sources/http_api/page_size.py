"""How many events a page is asked to hold. Not here: when one is too large (``fetching``)."""

_SUCCESSES_UNTIL_LARGER = 20


class PageSize:
    """How many events a page is asked to hold: halved where that is too many, and doubled again after a while."""

    def __init__(self, most: int, *, fixed: bool = False) -> None:
        """Begins with the most; a fixed one stays."""
        self.most = self.value = most
        self._fixed = fixed
        self._successes = 0

    def halve(self) -> bool:
        """A page of this size was too much; returns whether the next one will be smaller."""
        self._successes = 0
        if self._fixed or self.value == 1:
            return False
        self.value //= 2
        return True

    def succeeded(self) -> None:
        """A page arrived."""
        self._successes += 1
        if self._successes >= _SUCCESSES_UNTIL_LARGER and self.value < self.most:
            self.value, self._successes = min(self.most, self.value * 2), 0
