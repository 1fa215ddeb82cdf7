"""Which way through the files a search takes: which conditions lead, or in which experiments files are walked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from sqlalchemy import Select, false, func, or_, select, union_all
from sqlalchemy.orm import Session

from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.finding.indexed import Index
from beamkeeper.db.finding.sources import Way
from beamkeeper.db.finding.windows import Found, Merged, Windows, WithWords, along
from beamkeeper.db.search.tables import SearchExperimentRow
from beamkeeper.domain.files import FileOrder

FEW = 5_000
"""A condition that so few files meet leads at once."""
SOME = 100_000
"""A condition that so many meet may lead, since the index alone gives the newest of them."""
MANY = 1_000_000
"""A condition that so many meet leads where the newest files have not filled a page."""
TRIAL = 1_000
"""After so many files without a full page it is looked whether a broad condition should lead."""
DENSE = 8
"""A walk that is tried for several conditions goes on where one in so many files at least is meant."""
_MERGED_EXPERIMENTS = 1_000
_WALKED_EXPERIMENTS = 32
_PROBED_EXPERIMENTS = 5_000
_CONSIDERED = 8


class Leading:
    """Chooses, for one search; None stands for a walk along all files."""

    def __init__(self, session: Session, index: Index, ways: Sequence[Way], order: FileOrder) -> None:
        self._session = session
        self._dialect = session.get_bind().dialect.name
        self._index = index
        self._ways = ways[:_CONSIDERED]
        self._order = order
        self._is_led = False
        self._trial: Windows | None = None
        self._with_words: dict[int, int] = {}

    def first(self) -> Windows | None:
        """Return the way to begin with."""
        if self._order is FileOrder.PATH:
            return self._led(FEW) if self._may_lead else None
        if not self._may_lead:
            return self._walked()
        found = self._with_words_alone() or self._led(FEW)
        # To count the files of the one condition, and to sort them, takes longer than to read the newest of each.
        alone = self._merged() if found is None and len(self._ways) == 1 else None
        return found or alone or self._tried() or self._led(SOME) or self._merged() or self._walked()

    def second(self, walked: Windows, searched: int, found: int) -> Windows | None:
        """Return a better way from where a walk has come to, if it is time for that and there is one.

        `searched` files have been looked at, and so many of them `found` to be meant.
        """
        is_led = isinstance(walked, Found | WithWords) or (isinstance(walked, Merged) and walked.is_led)
        is_tried = walked is self._trial and len(self._ways) > 1
        is_early = found * DENSE >= searched if is_tried else searched < TRIAL
        if self._is_led or is_early or is_led or not self._may_lead:
            return None
        self._is_led = True
        if self._order is not FileOrder.NEWEST:
            return None
        return (self._led(SOME) if walked is self._trial else None) or self._led(MANY)

    @cached_property
    def _may_lead(self) -> bool:
        besides = self._index.unsure_ids()
        return bool(self._ways) and not (besides and self._count(besides, FEW) > FEW)

    @cached_property
    def _narrowed(self) -> Index:
        """The index with those experiments alone in which files meet each condition, as far as it tells."""
        experiment, index = SearchExperimentRow.id, self._index
        if len(index.ids) > _PROBED_EXPERIMENTS:
            return index
        probes = [or_(*found) for way in self._ways if (found := way.probes(experiment)) is not None]
        if not probes:
            return index
        there = set(self._session.scalars(select(experiment).where(index.within(experiment), *probes)))
        if len(there) == len(index.ids):
            return index
        return replace(index, ids=[each for each in index.ids if each in there], is_all=False)

    def _tried(self) -> Windows | None:
        """Return the way along the newest files of the few experiments that have files of each condition.

        Mostly these fill a page, since what is asked for is of a whole experiment: to count takes ten times as long.
        Of one condition only where more than FEW files that meet it are among SOME.
        """
        index, row = self._narrowed, SearchExperimentRow
        if index.is_behind or not 0 < len(index.ids) <= _WALKED_EXPERIMENTS or self._ways[0].is_of_words:
            return None
        every = select(func.sum(row.files)).where(index.within(row.id))
        if len(self._ways) > 1 or (self._session.scalar(every) or 0) <= SOME:
            self._trial = self._along(index)
        return self._trial

    def _led(self, most: int) -> Windows | None:
        """Return the way along the condition that the fewest files meet, where those are not more than this."""
        index = self._index if most == FEW else self._narrowed
        counted: list[tuple[int, int]] = []
        for i, way in enumerate(self._ways):
            # Of very many the best is enough; no other is counted further than that.
            limit = min([most, *(count for count, _ in counted)]) if most > SOME else most
            count = self._words(i) if way.is_of_words else self._count(way.selects(index), limit)
            if count <= limit:
                counted.append((count, i))
        if not counted:
            return None
        # Few are looked at one by one; of some, those alone that the next best way has too.
        best = [self._ways[i].selects(index) for _, i in sorted(counted)[: 2 if FEW < most <= SOME else 1]]
        return Found(self._order, [*_common(best), *self._index.unsure_ids()])

    def _with_words_alone(self) -> Windows | None:
        if len(self._ways) != 1 or self._ways[0].text is None:
            return None
        (part,) = self._ways[0].parts
        return WithWords(part.files, self._index.unsure_ids(), self._ways[0].text)

    def _words(self, i: int) -> int:
        """Return how many files have the words of this way, counted once: the work is the same each time."""
        if i not in self._with_words:
            count = self._count(self._ways[i].selects(self._index), SOME)
            self._with_words[i] = count if count <= SOME else MANY + 1
        return self._with_words[i]

    def _merged(self) -> Windows | None:
        """Return the way along a condition of which the index has the files of each experiment in order."""
        index = self._narrowed
        ordered = [way for way in self._ways if way.parts and all(part.is_ordered for part in way.parts)]
        if not ordered or len(index.ids) > _MERGED_EXPERIMENTS:
            return None
        return Merged(_numbers(index), ordered[0].parts, self._index.unsure_ids(), self._dialect)

    def _walked(self) -> Windows | None:
        index = self._narrowed if self._may_lead else self._index
        is_few = not index.is_all and len(index.ids) <= _WALKED_EXPERIMENTS
        if self._order is FileOrder.NEWEST and is_few and index.ids and not index.is_behind:
            return self._along(index)
        return None

    def _along(self, index: Index) -> Windows:
        return along(_numbers(index), self._index.unsure_ids(), self._dialect)

    def _count(self, selects: Sequence[Select[Any]], most: int) -> int:
        """Return how many files an index gives, counting no further than one more than `most`."""
        if not selects:
            return 0
        found = union_all(*selects).subquery()
        some = select(found.c.file_id).limit(most + 1).subquery()
        return self._session.scalar(select(func.count()).select_from(some)) or 0


def _numbers(index: Index) -> Select[Any]:
    row = SearchExperimentRow
    return select(row.id).where(index.within(row.id))


def _common(ways: Sequence[Sequence[Select[Any]]]) -> Sequence[Select[tuple[int]]]:
    """Return the files that all of these ways have, of which the narrowest comes first."""
    nothing = select(FileRow.id.label("file_id")).where(false())
    *narrow, last = [way or [nothing] for way in ways]
    if not narrow:
        return last
    found = union_all(*last).subquery()
    # The sum lets a database list the narrow ones, instead of looking up each of theirs in the broad one.
    within = [(found.c.file_id + 0).in_(select(union_all(*way).subquery().c.file_id)) for way in narrow]
    return [select(found.c.file_id).where(*within)]
