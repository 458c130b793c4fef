"""What counts as a copy."""

from dataclasses import dataclass

from cngpt.errors import ConfigError

KEEP, EXACT, NEAR = 0, 1, 2  # what becomes of a document: it stays, or goes as an exact copy, or as a near copy


@dataclass(frozen=True)
class Dedup:
    """The group `dedup` of conf/. Raises ConfigError for values that make no sense.

    Two documents whose shingle sets have Jaccard similarity s become a candidate pair with probability
    1 - (1 - s**rows)**bands: with 20 x 6, 99.9% at 0.82 (2% of the characters edited), 92% at 0.7, 8% at 0.4.
    """

    exact: bool = True
    near: bool = True
    threshold: float = 0.7  # Jaccard similarity from which a document is a near copy
    shingle: int = 5  # characters
    bands: int = 20
    rows: int = 6
    lines: int = 0  # a line in so many different documents is boilerplate; 0: off
    min_line_chars: int = 12  # shorter lines are never boilerplate

    def __post_init__(self):
        for key in ("exact", "near"):
            if not isinstance(getattr(self, key), bool):
                self._refuse(key, "true or false")
        for key, low, high in (("shingle", 1, 64), ("bands", 1, 1024), ("rows", 1, 1024), ("min_line_chars", 1, 10**6)):
            if not _is_whole(getattr(self, key)) or not low <= getattr(self, key) <= high:
                self._refuse(key, f"a whole number, {low} ... {high}")
        if self.slots > 1024:
            raise ConfigError(f"dedup.bands={self.bands} x dedup.rows={self.rows} is {self.slots} slots a document: at most 1024")
        if not _is_whole(self.lines) or self.lines < 0 or self.lines == 1:
            self._refuse("lines", "a number of documents, 2 or more, or 0 to leave lines alone")
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float) or not 0 < self.threshold <= 1:
            self._refuse("threshold", "a similarity, above 0 and up to 1")

    @property
    def slots(self) -> int:
        """Numbers in a signature."""
        return self.bands * self.rows

    def _refuse(self, key: str, allowed: str):
        raise ConfigError(f"dedup.{key}={getattr(self, key)}: must be {allowed}")


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
