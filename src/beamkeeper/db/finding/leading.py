"""Which way through the files a search takes: which conditions lead, or in which experiments files are walked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from sqlalchemy import Select, and_, false, func, or_, select, true
from sqlalchemy.orm import Session

from beamkeeper.db.files.tables import FileRow
from beamkeeper.db.finding.asked import Asked
from beamkeeper.db.finding.bounds import bounds
from beamkeeper.db.finding.indexed import Index
from beamkeeper.db.finding.pace import DROPPED, Pace
from beamkeeper.db.finding.portions import Stretches, Ways
from beamkeeper.db.finding.sources import Way
from beamkeeper.db.finding.windows import Found, Known, Merged, Part, WithWords, along, united
from beamkeeper.db.kinds import rows_of
from beamkeeper.db.search.tables import (
    TEXT,
    TYPE,
    SearchCountRow,
    SearchExperimentRow,
    SearchFacetRow,
    SearchFileRow,
    SearchStatRow,
    SearchTextRow,
)
from beamkeeper.domain.files import FileOrder
from beamkeeper.domain.query.ast import Builtin, Compare, Text

FEW = 20_000
"""A condition that so few files meet leads at once."""
ENOUGH = 500
"""Where so few meet a condition, no other is counted."""
BROADER = 4
"""Of a condition that so many times as many meet, each is looked up sooner than all are listed."""
ONE_BY_ONE = 2_000
"""Of so many files that a condition gives, the others are looked up one by one."""
SOME = 100_000
"""A condition that so many meet may lead after TRIAL, since the index alone gives the newest of them."""
MANY = 1_000_000
"""A condition that so many meet may lead after LONG."""
TRIAL, LONG = 1_500, 6_000
"""When so many files have been read, or what takes as long, without a full page, it is looked what may lead."""
ALONG = 500
"""So many files of each experiment are looked at first where those of few experiments are."""
SURE = 1_000
"""So many files whose texts are counted tell how many there are whose texts are not."""
LISTED = 30
"""So many files of experiments that are named are gone through for words, while one is looked up."""
DENSE = 8
"""A walk along the files of few experiments, for several conditions, goes on where one in so many is meant."""
_PAGE = 100
"""So many files most pages have."""
_UNSURE = 5_000
_MERGED_EXPERIMENTS = 500
_WALKED_EXPERIMENTS = 32
_TRIED_EXPERIMENTS = 4
_PROBED_EXPERIMENTS = 5_000
_CONSIDERED = 8


class Leading:
    """Chooses, for one search; None stands for a walk along all files."""

    def __init__(self, session: Session, index: Index, asked: Asked, ways: Sequence[Way], order: FileOrder) -> None:
        self._session = session
        self._dialect = session.get_bind().dialect.name
        self._index = index
        self._ways = list(ways[:_CONSIDERED])
        self._order = order
        self._asked = asked
        self._texts = [leaf for leaf in asked.leaves if isinstance(leaf, Text)]
        self._looked: set[int] = set()
        self._with_words: dict[int, int] = {}

    def first(self) -> Ways | None:
        """Return the way to begin with."""
        if self._order is FileOrder.PATH:
            return self._led(FEW) if self._may_lead else None
        if not self._may_lead:
            return self._walked()
        if self._is_of_times and (along := self._walked()) is not None:
            return along
        if self._is_of_few and not self._narrowed.ids:
            return self._walked()
        if len(self._ways) == 1:
            found = self._with_words_alone() or self._merged()
        else:
            found = self._tried() if self._is_of_whole else None
        found = found or self._led(FEW) or self._tried() or self._walked()
        return found or self._led(SOME) or self._merged()

    def second(self, walked: Ways, pace: Pace, found: int) -> Ways | None:
        """Return a better way from where a walk has come to, if it is time for that and there is one.

        So many of the files that it has gone through were `found` to be meant.
        """
        is_led = isinstance(walked, Found | WithWords) or (isinstance(walked, Merged) and walked.is_led)
        if is_led or not self._may_lead or self._order is not FileOrder.NEWEST:
            return None
        # To count what meets one condition takes longer than to look some thousands up; of several the narrowest leads.
        is_tried = isinstance(walked, Merged) and len(self._ways) > 1
        if (found * DENSE < pace.searched if is_tried else pace.spent >= TRIAL) and self._is_time(SOME):
            return self._led(SOME) or self._merged() or (self._walked() if is_tried else None)
        return self._led(MANY) if pace.spent >= LONG and self._is_time(MANY) else None

    def _is_time(self, most: int) -> bool:
        """Return whether no condition was looked for yet that so many files meet."""
        is_first = most not in self._looked
        self._looked.add(most)
        return is_first

    @cached_property
    def _may_lead(self) -> bool:
        return bool(self._ways) and self._is_sure

    @property
    def _is_of_times(self) -> bool:
        """Whether times of change alone are asked for: to those zones lead, and all else would read each experiment."""
        times = [node for node in self._asked.top if isinstance(node, Compare) and node.field == Builtin("modified")]
        return self._index.is_all and len(times) == len(self._asked.top)

    @cached_property
    def _is_sure(self) -> bool:
        """Whether the index tells of nearly all files whether they are meant."""
        besides = self._index.unsure_ids()
        return not (besides and self._count(besides, _UNSURE) > _UNSURE)

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

    @cached_property
    def _is_of_few(self) -> bool:
        """Whether few experiments have files of each of several conditions: then what is counted is counted there."""
        is_alone = len(self._ways) == 1 or self._ways[0].is_of_words or self._index.is_behind
        return not is_alone and len(self._narrowed.ids) <= _WALKED_EXPERIMENTS

    @cached_property
    def _is_of_whole(self) -> bool:
        """Whether a few experiments have files of each of several values: mostly that is all of their files."""
        is_of_values = all(part.is_ordered for way in self._ways for part in way.parts)
        return is_of_values and self._is_of_few and len(self._narrowed.ids) <= _TRIED_EXPERIMENTS

    def _tried(self) -> Ways | None:
        """Return the way along the newest files of the few experiments that have files of each of several conditions.

        Mostly these fill a page, since what is asked for is of a whole experiment.
        """
        return self._along(self._narrowed) if self._is_of_few else None

    def _led(self, most: int) -> Ways | None:
        """Return the way along the condition that the fewest files meet, where those are not more than this."""
        index = self._index if most == FEW and not self._is_of_few else self._narrowed
        counted: list[tuple[int, int]] = []
        limit = most
        for i, way in enumerate(self._ways):
            count = self._words(i, most) if way.is_of_words else self._files(way, index, limit)
            if count <= limit:
                counted.append((count, i))
                # Of very many the best is enough; of few another is of use that not many times as many meet.
                limit = count if most > SOME else min(limit, BROADER * count, FEW if count <= FEW else limit)
            if count <= ENOUGH:
                break
        if not counted:
            return None
        # Few are looked at one by one; of some, those alone that the next best way has too.
        is_one_by_one = most > SOME or min(counted)[0] <= ONE_BY_ONE
        best = [self._ways[i] for _, i in sorted(counted)[: 1 if is_one_by_one else 2]]
        met = [node for way in best for node in way.met]
        told = [node for way in best for node in way.told]
        known = Known(met, told, at_once=FEW if min(counted)[0] <= FEW else 0)
        sources = _common([way.selects(index) for way in best])
        return Found(self._order, [*sources, *self._index.unsure_ids()], known)

    def _with_words_alone(self) -> Ways | None:
        if self._ways[0].text is None:
            return None
        (part,) = self._ways[0].parts
        known = Known(met=self._ways[0].met, told=[self._ways[0].text])
        return WithWords(part.files, self._index.unsure_ids(), known)

    def _words(self, i: int, most: int) -> int:
        """Return how many files have the words of this way, counted once: the work is the same each time.

        It takes long where they are many: then what PostgreSQL takes them to be tells as much.
        """
        if i not in self._with_words:
            selects = self._ways[i].selects(self._index)
            likely = sum(self._likely(each) for each in selects) if self._dialect == "postgresql" else 0
            if most <= FEW and (likely > FEW or self._is_looked_up(likely)):
                return MANY + 1
            kept = self._kept(i, selects)
            count = self._count(selects, SOME) if kept is None else kept
            self._with_words[i] = count if count <= SOME else MANY + 1
        return self._with_words[i]

    def _is_looked_up(self, likely: int) -> bool:
        """Return whether words alone, in so many files of few experiments, are found sooner among the newest of these.

        To list them takes as long as to look each of them up, and goes through all files of experiments that are named.
        """
        index, row = self._index, SearchCountRow
        is_alone = len(self._ways) == 1 and self._ways[0].is_exact
        if not is_alone or index.is_all or len(index.ids) > _WALKED_EXPERIMENTS:
            return False
        of_these = (row.kind == TYPE, index.within(row.experiment_id))
        files = int(self._session.scalar(select(func.sum(row.files)).where(*of_these)) or 0)
        return files * _PAGE < likely * (likely + files / LISTED)

    def _kept(self, i: int, selects: Sequence[Select[Any]]) -> int | None:
        """Keep the files with the words of a way where they are few, and return how many: to find them takes long."""
        if self._dialect != "postgresql":
            return None
        found = self._session.scalars(select(united(selects).c.file_id).limit(FEW + 1)).all()
        if len(found) > FEW:
            return None
        self._ways[i] = replace(self._ways[i], parts=[Part(rows_of(found, SearchTextRow.file_id))])
        return len(found)

    def _likely(self, select_: Select[Any]) -> int:
        """Return how many rows PostgreSQL expects of a statement."""
        made = select_.compile(self._session.get_bind(), compile_kwargs={"render_postcompile": True})
        connection = self._session.connection()
        [plan] = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {made}", made.params).scalar_one()
        return int(plan["Plan"]["Plan Rows"])

    def _merged(self) -> Ways | None:
        """Return the way along a condition of which the index has the files of each experiment in order.

        Of one condition all experiments within reach are looked into: to look first which have files takes as long.
        """
        index = self._index if len(self._ways) == 1 and len(self._index.ids) <= _MERGED_EXPERIMENTS else self._narrowed
        ordered = [way for way in self._ways if way.parts and all(part.is_ordered for part in way.parts)]
        if not ordered or len(index.ids) > _MERGED_EXPERIMENTS:
            return None
        known = Known(met=ordered[0].met, told=ordered[0].told)
        return Merged(_numbers(index), ordered[0].parts, self._index.unsure_ids(), self._dialect, known=known)

    def _walked(self) -> Ways | None:
        """Return the way along the newest files in the index of the experiments that may have some."""
        if self._order is not FileOrder.NEWEST or self._index.is_behind or not self._is_sure:
            return None
        index = self._narrowed if self._may_lead and not self._is_of_times else self._index
        if not index.ids:
            return Found(self._order, [*_common([[]]), *self._index.unsure_ids()])
        if not index.is_all and len(index.ids) <= _WALKED_EXPERIMENTS:
            return self._along(index)
        # To look for words in the texts, one after the other, takes a quarter of looking up the text of each file.
        is_by_texts = self._dialect == "postgresql" and bool(self._texts)
        row: Any = SearchTextRow if is_by_texts else SearchFileRow
        # The sum keeps PostgreSQL from sorting all files of these experiments.
        within = [] if index.is_all else [index.within(row.experiment_id + 0)]
        # That it is true keeps PostgreSQL from asking the full text for the files of each block.
        matching = self._asked.compiler.matching
        with_words = {text: matching(text, []).is_(true()) for text in self._texts} if is_by_texts else {}
        at_once = (LONG if is_by_texts else TRIAL) * DROPPED
        columns = {} if is_by_texts else {"size": row.size, "modified": row.modified_at}
        ends = bounds(self._session, self._asked.compiler, self._asked.top, self._index, index)
        return Stretches(row.file_id, within, with_words, columns, self._index, at_once, *ends)

    def _along(self, index: Index) -> Merged:
        return along(_numbers(index), self._index.unsure_ids(), self._dialect, ALONG)

    def _files(self, way: Way, index: Index, most: int) -> int:
        """Return how many files a way gives, counting no further than one more than `most`.

        Of texts that begin in some way, what is counted of them tells about how many there are, and none is read.
        """
        if way.parts and all(part.counted for part in way.parts):
            counted, about = self._counted(way, index)
            if counted > most or counted >= SURE:
                return min(about, most + 1)
        return self._count(way.selects(index), most)

    def _counted(self, way: Way, index: Index) -> tuple[int, int]:
        """Return how many terms of a way are counted under their texts, and about how many there are in all.

        An experiment counts the texts that it had first, whatever these are, and of the others how many there are.
        """
        row, stat = SearchFacetRow, SearchStatRow
        is_of = (stat.experiment_id == row.experiment_id) & (stat.key_id == row.key_id) & (stat.dimension == TEXT)
        about = row.files * stat.terms // func.nullif(stat.terms - stat.other, 0)
        meant = or_(*(and_(*part.counted) for part in way.parts))
        wanted = select(func.sum(row.files), func.sum(about)).join(stat, is_of)
        counted, in_all = self._session.execute(wanted.where(index.within(row.experiment_id), meant)).one()
        return int(counted or 0), int(in_all or 0)

    def _count(self, selects: Sequence[Select[Any]], most: int) -> int:
        """Return how many files an index gives, counting no further than one more than `most`."""
        if not selects:
            return 0
        found = united(selects)
        some = select(found.c.file_id).limit(most + 1).subquery()
        return self._session.scalar(select(func.count()).select_from(some)) or 0


def _numbers(index: Index) -> Select[Any]:
    row = SearchExperimentRow
    return select(row.id).where(index.within(row.id))


def _common(ways: Sequence[Sequence[Select[Any]]]) -> Sequence[Select[Any]]:
    """Return the files that all of these ways have, of which the narrowest comes first."""
    nothing: Select[Any] = select(FileRow.id.label("file_id")).where(false())
    *narrow, last = [way or [nothing] for way in ways]
    if not narrow:
        return last
    found = united(last)
    # The sum lets a database list the narrow ones, instead of looking up each of theirs in the broad one.
    within = [(found.c.file_id + 0).in_(select(united(way).c.file_id)) for way in narrow]
    return [select(*found.c).where(*within)]
