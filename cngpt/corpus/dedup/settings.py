"""What counts as a copy."""

from typing import Annotated

from pydantic import AfterValidator

from cngpt.corpus.clean.rules import AS_WRITTEN
from cngpt.errors import ConfigError
from cngpt.settings import Field, Hints, Settings

# what becomes of a document: it stays, or goes as an exact copy, or as a near copy
KEEP, EXACT, NEAR = 0, 1, 2
MOST_SLOTS = 1024


def _several(documents: int) -> int:
    if documents == 1:
        raise ValueError("must be a number of documents, 2 or more, or 0 to leave lines alone")
    return documents


class Dedup(Settings, group="dedup"):
    """Which documents and lines are copies; between copies the first by (source, unit, position) stays.

    Two documents whose shingle sets have Jaccard similarity s become a candidate pair with probability
    1 - (1 - s**rows)**bands: with 20 x 6, 99.9% at 0.82 (2% of the characters edited), 92% at 0.7, 8% at 0.4.
    """

    exact: bool = Field(
        True, description="the same letters, white space, punctuation and the case of ASCII letters aside, are a copy"
    )
    near: bool = Field(True, description="MinHash finds candidates; those truly similar to a document that stays are near copies")
    threshold: Annotated[float, AS_WRITTEN, Hints("similarity", "jaccard")] = Field(
        0.7, gt=0, le=1, description="shared shingles over all, from which a document is a near copy: 2% of the characters edited leave about 0.82"
    )  # fmt: skip
    shingle: Annotated[int, Hints("ngram", "ngrams")] = Field(5, ge=1, le=64, description="characters of a shingle")
    bands: int = Field(
        20, ge=1, le=MOST_SLOTS, description="with rows: how surely a pair is found; a signature takes 2 x bands x rows bytes"
    )
    rows: int = Field(6, ge=1, le=MOST_SLOTS, description="numbers of a signature in a band")
    lines: Annotated[int, AfterValidator(_several)] = Field(
        0, ge=0, description="a line in so many different documents goes from all of them; 0: lines are left alone"
    )
    min_line_chars: int = Field(
        12, ge=1, le=100_000, description="shorter lines are never boilerplate; white space and punctuation do not count"
    )

    def model_post_init(self, context) -> None:
        if self.slots > MOST_SLOTS:
            raise ConfigError(
                f"dedup.bands={self.bands} x dedup.rows={self.rows} is {self.slots} slots a document: at most {MOST_SLOTS}"
            )

    @property
    def slots(self) -> int:
        """Numbers in a signature."""
        return self.bands * self.rows

    @property
    def is_on(self) -> bool:
        """Whether anything is compared."""
        return self.exact or self.near or self.lines > 0
