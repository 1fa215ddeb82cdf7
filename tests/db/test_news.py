"""Who is woken by news, and who is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from beamkeeper.db.news import News, Topic
from beamkeeper.domain.events import NewEvent
from beamkeeper.testing.catalogue import Catalogue


class Ears:
    """Counts what it hears."""

    def __init__(self, news: News, *about: Topic) -> None:
        self.count = 0
        self.end = news.listen(self._hear, *about)

    def _hear(self) -> None:
        self.count += 1


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Catalogue]:
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:
        catalogue.experiment()
        yield catalogue


def test_news_of_a_topic_wakes_those_who_wait_for_it_and_those_who_wait_for_anything() -> None:
    news = News()
    anything, files, both = Ears(news), Ears(news, Topic.FILES), Ears(news, Topic.FILES, Topic.WALKS)
    news.tell(Topic.FILES)
    news.tell(Topic.WALKS, Topic.COPIES)
    assert (anything.count, files.count, both.count) == (2, 1, 2)
    news.tell()
    assert (anything.count, files.count, both.count) == (3, 2, 3)
    files.end()
    news.tell(Topic.FILES)
    assert (anything.count, files.count, both.count) == (4, 2, 4)


def test_a_commit_with_an_event_is_news_for_everybody_or_for_its_topic_and_the_feed(made: Catalogue) -> None:
    database = made.database
    feed, files, walks = (Ears(database, topic) for topic in (Topic.EVENTS, Topic.FILES, Topic.WALKS))
    with database.write() as tx:
        tx.events.add(NewEvent(kind="test"))
    assert (feed.count, files.count, walks.count) == (1, 1, 1)
    with database.write() as tx:
        tx.events.add(NewEvent(kind="test"))
        tx.about = Topic.FILES
    assert (feed.count, files.count, walks.count) == (2, 2, 1)
    with database.write() as tx:
        tx.about = Topic.FILES
    assert (feed.count, files.count, walks.count) == (2, 3, 1)
    with database.write():
        pass
    assert (feed.count, files.count, walks.count) == (2, 3, 1)


def test_what_is_rolled_back_is_no_news(made: Catalogue) -> None:
    ears = Ears(made.database)
    with pytest.raises(ZeroDivisionError):
        _write_and_fail(made)
    assert ears.count == 0


def _write_and_fail(made: Catalogue) -> None:
    with made.database.write() as tx:
        tx.about = Topic.FILES
        tx.events.add(NewEvent(kind=str(1 / 0)))
