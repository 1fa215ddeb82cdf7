"""Calls that register files of one experiment: on PostgreSQL beside one another, as long as all they bring is new."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import text

from beamkeeper.db.bulk import present
from beamkeeper.db.files.tables import FileRow
from beamkeeper.domain.datasets import MemberQuery
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.files import NewFile, Registered, RegisteredAs
from beamkeeper.domain.runs import NewRunRule
from beamkeeper.testing.catalogue import Catalogue, new_file
from db.waiting import until_another_waits

WAIT_S = 60
CREATED, EXISTS = RegisteredAs.CREATED, RegisteredAs.EXISTS


@pytest.fixture
def catalogue(postgres_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(postgres_url)) as made:
        yield made


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def files(catalogue: Catalogue, *names: object) -> list[NewFile]:
    uid = catalogue.experiment().uid
    return [new_file(f"data/{name}", experiment_uid=uid, content=str(name).encode()) for name in names]


def register(catalogue: Catalogue, new: Sequence[NewFile]) -> list[RegisteredAs]:
    with catalogue.database.write() as tx:
        return results(tx.files.register(new, by="other"))


def results(answers: Sequence[Registered]) -> list[RegisteredAs]:
    return [answer.result for answer in answers]


def paths(catalogue: Catalogue) -> list[str]:
    with catalogue.database.read() as tx:
        return sorted(tx.session.scalars(text("SELECT path_shown FROM files")))


def test_what_is_new_comes_in_while_another_call_has_not_ended(catalogue: Catalogue, other: ThreadPoolExecutor) -> None:
    mine, theirs = files(catalogue, 1, 2), files(catalogue, 3, 4)
    with catalogue.database.write() as tx:
        assert results(tx.files.register(mine, by="me")) == [CREATED, CREATED]
        assert other.submit(register, catalogue, theirs).result(WAIT_S) == [CREATED, CREATED]
        assert paths(catalogue) == ["data/3", "data/4"]
    assert paths(catalogue) == ["data/1", "data/2", "data/3", "data/4"]


def test_one_path_that_two_bring_at_once_is_one_file_and_nothing_is_lost_or_noted_in_vain(
    catalogue: Catalogue, other: ThreadPoolExecutor
) -> None:
    mine, theirs = files(catalogue, 1, 2), files(catalogue, 2, 3)
    with catalogue.database.write() as tx:
        tx.files.register(mine, by="me")
        answer = other.submit(register, catalogue, theirs)
        until_another_waits(tx.session)
    assert answer.result(WAIT_S) == [EXISTS, CREATED]
    assert paths(catalogue) == ["data/1", "data/2", "data/3"]
    with catalogue.database.write() as tx:
        noted = text("SELECT generate_series(first_id, last_id) FROM search_changes")
        assert set(tx.session.scalars(noted)) == set(tx.session.scalars(text("SELECT id FROM files")))
        assert tx.search.step(1000) == 3


def test_one_version_that_is_sent_again_before_it_is_answered_is_the_same(
    catalogue: Catalogue, other: ThreadPoolExecutor
) -> None:
    new = files(catalogue, *range(5))
    with catalogue.database.write() as tx:
        first = tx.files.register(new, by="me")
        again: Future[Sequence[Registered]] = other.submit(_registered, catalogue, new)
        until_another_waits(tx.session)
    assert results(again.result(WAIT_S)) == [EXISTS] * 5
    assert [answer.file_uid for answer in again.result()] == [answer.file_uid for answer in first]


def _registered(catalogue: Catalogue, new: Sequence[NewFile]) -> Sequence[Registered]:
    with catalogue.database.write() as tx:
        return tx.files.register(new, by="other")


def test_who_waits_for_one_that_gives_up_brings_the_path(catalogue: Catalogue, other: ThreadPoolExecutor) -> None:
    class GaveUpError(Exception):
        pass

    def give_up(answer: list[Future[list[RegisteredAs]]]) -> None:
        with catalogue.database.write() as tx:
            tx.files.register(files(catalogue, 1), by="me")
            answer.append(other.submit(register, catalogue, files(catalogue, 1)))
            until_another_waits(tx.session)
            raise GaveUpError

    answer: list[Future[list[RegisteredAs]]] = []
    with pytest.raises(GaveUpError):
        give_up(answer)
    assert answer[0].result(WAIT_S) == [CREATED]
    assert paths(catalogue) == ["data/1"]


def test_two_that_bring_the_same_in_opposite_orders_both_end(catalogue: Catalogue, other: ThreadPoolExecutor) -> None:
    """Each waits for a path of the other: the database ends one of them, which begins anew, alone."""
    names = [f"{number:04d}" for number in range(2000)]
    both, begin = [files(catalogue, *names), files(catalogue, *reversed(names))], threading.Barrier(2)

    def bring(new: Sequence[NewFile]) -> list[RegisteredAs]:
        begin.wait(WAIT_S)
        return register(catalogue, new)

    answers = [each.result(WAIT_S) for each in [other.submit(bring, new) for new in both]]
    assert sorted(answer[0] for answer in answers) == [CREATED, EXISTS]
    assert all(len(set(answer)) == 1 for answer in answers)
    assert len(paths(catalogue)) == 2000


def test_who_decides_about_what_is_known_is_alone(catalogue: Catalogue, other: ThreadPoolExecutor) -> None:
    register(catalogue, files(catalogue, 1))
    uid = catalogue.experiment().uid
    with catalogue.database.write() as tx:
        tx.files.lock([uid])
        waiting = other.submit(register, catalogue, files(catalogue, 2))
        until_another_waits(tx.session)
        assert not waiting.done()
    assert waiting.result(WAIT_S) == [CREATED]
    with catalogue.database.write() as tx:
        tx.files.register(files(catalogue, 3), by="me")
        second = new_file("data/1", experiment_uid=uid, content=b"other bytes", number=2)
        waiting = other.submit(register, catalogue, [second])
        until_another_waits(tx.session)
        assert not waiting.done()
    assert waiting.result(WAIT_S) == [CREATED]


def test_files_that_come_in_together_belong_to_one_run(catalogue: Catalogue, other: ThreadPoolExecutor) -> None:
    uid = catalogue.experiment().uid
    with catalogue.database.write() as tx:
        tx.run_rules.add(NewRunRule(experiment_uid=uid, path="data/{run}_*"), by="ada")
    first, second = files(catalogue, "7_a", "7_b")
    both_are_in, first_has_made_it = threading.Event(), threading.Event()

    def bring() -> None:
        with catalogue.database.write() as tx:
            made = tx.files.register([second], by="other")
            both_are_in.set()
            assert first_has_made_it.wait(WAIT_S)
            tx.run_rules.apply(answer.file_uid for answer in made if answer.file_uid)

    with catalogue.database.write() as tx:
        made = tx.files.register([first], by="me")
        brought = other.submit(bring)
        assert both_are_in.wait(WAIT_S)
        tx.run_rules.apply(answer.file_uid for answer in made if answer.file_uid)
        first_has_made_it.set()
        until_another_waits(tx.session)
    brought.result(WAIT_S)
    with catalogue.database.read() as tx:
        run = tx.runs.find(uid, "7")
        assert run is not None
        assert len(tx.runs.files(run.uid, MemberQuery()).items) == 2


def test_a_run_is_not_forgotten_while_a_file_of_it_comes_in(catalogue: Catalogue, other: ThreadPoolExecutor) -> None:
    uid = catalogue.experiment().uid
    first, second = files(catalogue, "7_a", "7_b")
    with catalogue.database.write() as tx:
        old = tx.run_rules.add(NewRunRule(experiment_uid=uid, path="data/{run}_a"), by="ada")
        tx.run_rules.apply(answer.file_uid for answer in tx.files.register([first], by="me") if answer.file_uid)
        tx.run_rules.add(NewRunRule(experiment_uid=uid, path="data/{run}_b"), by="ada")
        tx.run_rules.remove(old.uid)
    step(catalogue)  # the run has no file now
    with catalogue.database.write() as tx:
        tx.run_rules.apply(answer.file_uid for answer in tx.files.register([second], by="me") if answer.file_uid)
        forgetting = other.submit(step, catalogue)
        until_another_waits(tx.session)
    forgetting.result(WAIT_S)
    with catalogue.database.read() as tx:
        run = tx.runs.find(uid, "7")
        assert run is not None
        assert [member.file.path for member in tx.runs.files(run.uid, MemberQuery()).items] == ["data/7_b"]


def step(catalogue: Catalogue) -> None:
    with catalogue.database.write() as tx:
        tx.run_rules.step(100)


def test_a_connection_that_is_lost_is_said_as_everywhere_by_what_goes_past_sqlalchemy(catalogue: Catalogue) -> None:
    def ask_when_it_is_lost() -> None:
        with catalogue.database.write() as tx:
            pid = tx.session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with catalogue.database.read() as killing:
                killing.session.execute(text("SELECT pg_terminate_backend(:pid, 30000)"), {"pid": pid})
            present(tx.session, FileRow.path, [b"data/1"])

    with pytest.raises(UnavailableError, match="try again"):
        ask_when_it_is_lost()
    assert register(catalogue, files(catalogue, 1)) == [CREATED]
