"""The table of questions to the storage, on both databases."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from beamkeeper.db import Database, StorageTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.storage_tasks import KEPT, Task, TaskKind
from beamkeeper.domain.storage import TaskState
from beamkeeper.testing.beamline import Clock

Storage = Database[StorageTransaction]
EXPERIMENT = UUID(int=1)


def ask(storage: Storage, kind: TaskKind = TaskKind.STAT) -> Task:
    with storage.write() as tx:
        return tx.tasks.add(new_uid(), kind, EXPERIMENT, {"items": [{"path_b64": "YQ=="}]})


def next_of(storage: Storage, *kinds: TaskKind) -> UUID | None:
    with storage.read() as tx:
        task = tx.tasks.pending(kinds)
    return task.uid if task else None


def test_a_question_comes_back_as_asked_and_then_with_its_answer(storage: Storage, clock: Clock) -> None:
    task = ask(storage)
    with storage.read() as tx:
        assert tx.tasks.get(task.uid) == task
        assert tx.tasks.get(new_uid()) is None
    assert (task.state, task.request, task.answer) == (TaskState.PENDING, {"items": [{"path_b64": "YQ=="}]}, None)
    ended_at = clock.tick(5)
    with storage.write() as tx:
        tx.tasks.end(task, {"items": []})
    with storage.read() as tx:
        done = tx.tasks.get(task.uid)
    assert done is not None
    assert (done.state, done.answer, done.ended_at) == (TaskState.DONE, {"items": []}, ended_at)
    assert next_of(storage, TaskKind.STAT) is None


def test_who_waited_longest_is_next_and_each_kind_has_its_own_queue(storage: Storage, clock: Clock) -> None:
    read = ask(storage, TaskKind.READ)
    clock.tick()
    first, second = ask(storage), ask(storage, TaskKind.LISTING)
    assert next_of(storage, TaskKind.STAT, TaskKind.LISTING) == first.uid
    assert next_of(storage, TaskKind.LISTING) == second.uid
    assert next_of(storage, *TaskKind) == read.uid


def test_a_pause_says_why_and_lets_others_go_first(storage: Storage, clock: Clock) -> None:
    first, second = ask(storage), ask(storage)
    with storage.write() as tx:
        tx.tasks.pause(first, "not mounted", until=clock.now + timedelta(seconds=4))
    assert next_of(storage, TaskKind.STAT) == second.uid
    with storage.read() as tx:
        paused = tx.tasks.get(first.uid)
    assert paused is not None
    assert (paused.message, paused.attempts, paused.state) == ("not mounted", 1, TaskState.PENDING)
    with storage.write() as tx:
        tx.tasks.end(second, {})
    assert next_of(storage, TaskKind.STAT) is None
    clock.tick(4)
    assert next_of(storage, TaskKind.STAT) == first.uid


def test_answers_are_forgotten_after_a_day_and_questions_never(storage: Storage, clock: Clock) -> None:
    answered, waiting = ask(storage), ask(storage)
    with storage.write() as tx:
        tx.tasks.end(answered, {})
    clock.tick(KEPT.total_seconds())
    with storage.write() as tx:
        assert tx.tasks.sweep() == 0
    clock.tick(1)
    with storage.write() as tx:
        assert tx.tasks.sweep() == 1
        assert tx.tasks.get(answered.uid) is None
        assert tx.tasks.get(waiting.uid) is not None


def test_a_question_does_not_wait_for_a_clock_that_was_set_back(storage: Storage, clock: Clock) -> None:
    task = ask(storage)
    with storage.write() as tx:
        tx.tasks.pause(task, "not mounted", until=clock.now + timedelta(seconds=4))
    assert next_of(storage, TaskKind.STAT) is None
    clock.now -= timedelta(days=3)
    assert next_of(storage, TaskKind.STAT) == task.uid
