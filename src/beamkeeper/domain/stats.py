"""What is counted of the catalogue's files: facets of metadata keys, and files and bytes by where they belong."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from beamkeeper.domain.experiments import IndexKey
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import Input, Model, Uid, WireInt

FACET_HITS = 100_000
"""Where conditions are given, so many of the files that meet them are counted."""


class FacetQuery(Input):
    """Which values do these metadata keys have, of the files that are meant?"""

    keys: Annotated[tuple[IndexKey, ...], Field(min_length=1, max_length=10)]
    files: FileQuery = Field(default_factory=FileQuery, description="Which files are meant; all, where it is empty.")
    limit: int = Field(default=20, ge=1, le=100, description="So many different texts of a key, the most frequent.")
    hits: int = Field(
        default=FACET_HITS,
        ge=1,
        le=FACET_HITS,
        description="With conditions: so many of the files that meet them are counted at most, the first of them.",
    )


class FacetValue(Model):
    """A text, or a truth value, and how many files have it."""

    value: str
    files: WireInt


class NumberFacet(Model):
    """The numbers of a key that can be compared with one another."""

    dimension: str = Field(description="What they are of, in SI base units, such as `m`; `plain` as they are written.")
    files: WireInt
    low: float
    high: float
    mean: float | None = Field(description="None: the numbers are too large to be added up.")
    deviation: float | None = Field(description="The standard deviation; None where there is no mean.")


class Facet(Model):
    """The values of one key."""

    key: str
    values: tuple[FacetValue, ...]
    other: WireInt = Field(description="How many files have other texts than those in `values`; of lists, how often.")
    numbers: tuple[NumberFacet, ...]


class Facets(Model):
    """The values of the keys that were asked for, in the order asked."""

    facets: tuple[Facet, ...]
    is_sample: bool = Field(default=False, description="Only the first hits were counted, as many as `counted`.")
    counted: WireInt | None = Field(default=None, description="How many files met the conditions, if there are any.")
    index_behind: WireInt = Field(description="About how many files have changed since they were indexed.")


class StatsBy(StrEnum):
    """By what files are counted."""

    EXPERIMENT = "experiment"
    DIRECTORY = "directory"
    TYPE = "type"
    DAY = "day"


class StatsQuery(Input):
    """How many files are there, by what?"""

    by: StatsBy = StatsBy.EXPERIMENT
    experiment_uid: Uid | None = None
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class Stat(Model):
    """Files of one experiment, directory, type or day."""

    name: str = Field(
        description="The experiment's name; the directory; the suffix in small letters, empty where there is none; "
        "the day (UTC) on which files were last modified at their source."
    )
    experiment_uid: Uid | None = Field(default=None, description="Where files are counted by experiment.")
    files: WireInt
    bytes: WireInt


class StatPage(Model):
    """Some counts in the order of names, the sum of all, and the cursor that goes on."""

    items: tuple[Stat, ...]
    files: WireInt = Field(description="Of all within reach, whatever the page.")
    bytes: WireInt
    next: str | None = None
    index_behind: WireInt = Field(description="About how many files have changed since they were indexed.")


class Moments(Model):
    """Numbers in a form that can be added to others: how many, their mean, and their squared distances from it."""

    count: int
    mean: float | None
    squares: float | None
    low: float
    high: float

    def plus(self, other: Moments) -> Moments:
        """Return both together (Chan, Golub, LeVeque)."""
        count = self.count + other.count
        mean = squares = None
        if self.mean is not None and other.mean is not None:
            apart = other.mean - self.mean
            mean = _finite(self.mean + apart * other.count / count)
            if self.squares is not None and other.squares is not None:
                squares = _finite(self.squares + other.squares + apart * apart * self.count * other.count / count)
        return Moments(
            count=count, mean=mean, squares=squares, low=min(self.low, other.low), high=max(self.high, other.high)
        )

    @property
    def deviation(self) -> float | None:
        """The standard deviation of all of them."""
        return None if self.squares is None else math.sqrt(max(0.0, self.squares) / self.count)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
