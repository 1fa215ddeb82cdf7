"""Runs on both databases: by call, by rules, and rules that come and go while files do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest

from beamkeeper.domain.datasets import MemberQuery
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.experiments import ExperimentChange
from beamkeeper.domain.files import NewFile
from beamkeeper.domain.runs import RULES_LIMIT, NewRun, NewRunRule, RunQuery, RunRule, RunState, RunStop
from beamkeeper.domain.users import Reach
from beamkeeper.testing.catalogue import Catalogue, new_file

EVERYTHING = Reach(is_all=True)
BATCH = 2


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(database_url)) as made:
        yield made


def register(catalogue: Catalogue, *files: NewFile | str, experiment: str = "coffee") -> list[UUID]:
    uid = catalogue.experiment(experiment).uid
    new = [file if isinstance(file, NewFile) else new_file(file) for file in files]
    with catalogue.database.write() as tx:
        answers = tx.files.register([file.model_copy(update={"experiment_uid": uid}) for file in new], by="service")
        uids = [answer.file_uid for answer in answers if answer.file_uid is not None]
        tx.run_rules.apply(uids)
    return uids


def rule(catalogue: Catalogue, **given: Any) -> RunRule:
    of = {} if "type" in given else {"experiment_uid": catalogue.experiment().uid}
    with catalogue.database.write() as tx:
        return tx.run_rules.add(NewRunRule(**of, **given), by="ada")


def remove(catalogue: Catalogue, made: RunRule) -> None:
    with catalogue.database.write() as tx:
        tx.run_rules.remove(made.uid)


def settle(catalogue: Catalogue) -> int:
    """Let the engine's steps run until there is nothing to do; return how many there were."""
    for steps in range(1000):
        with catalogue.database.write() as tx:
            is_waiting = tx.run_rules.is_waiting()
            assert tx.run_rules.step(BATCH) is is_waiting
        if not is_waiting:
            return steps
    raise AssertionError("it never ends")


def runs(catalogue: Catalogue, experiment: str = "coffee") -> dict[str, list[str | None]]:
    """Return the files of each run of an experiment."""
    found = {}
    with catalogue.database.read() as tx:
        for run in tx.runs.page(RunQuery(experiment_uid=catalogue.experiment(experiment).uid), EVERYTHING).items:
            found[run.name] = [m.file.path for m in tx.runs.files(run.uid, MemberQuery()).items]
            assert tx.runs.count(run.uid).files == len(found[run.name])
    return found


def test_new_files_follow_a_rule_at_once_and_old_ones_by_and_by(catalogue: Catalogue) -> None:
    register(catalogue, *(f"data/Ag/{run}_{frame}.tif" for run in (1, 2) for frame in range(3)), "data/notes.txt")
    register(catalogue, "data/Ag/1_0.tif", experiment="tea")
    made = rule(catalogue, path="data/{sample}/{run}_*.tif")
    assert not made.is_applied
    register(catalogue, "data/Ag/1_9.tif", "data/Au/3_0.tif", "data/Ag/0_0.tif")
    assert runs(catalogue) == {"0": ["data/Ag/0_0.tif"], "1": ["data/Ag/1_9.tif"], "3": ["data/Au/3_0.tif"]}
    assert settle(catalogue) >= 9 // BATCH
    frames = {run: [f"data/Ag/{run}_{frame}.tif" for frame in range(3)] for run in "12"}
    assert runs(catalogue) == {
        "0": ["data/Ag/0_0.tif"],
        "1": [*frames["1"], "data/Ag/1_9.tif"],
        "2": frames["2"],
        "3": ["data/Au/3_0.tif"],
    }
    assert runs(catalogue, "tea") == {}
    with catalogue.database.read() as tx:
        (listed,) = tx.run_rules.of(catalogue.experiment().uid, None)
        assert listed.is_applied
        found = tx.runs.find(catalogue.experiment().uid, "3")
    assert found is not None
    assert (found.state, found.created_by, found.metadata) == (RunState.INFERRED, "rule", {"path": {"sample": "Au"}})


def test_a_field_tells_the_run_and_a_new_version_may_tell_another(catalogue: Catalogue) -> None:
    rule(catalogue, field="entry.scan")
    values: list[Any] = [7, "7", 7.0, {"value": 7, "unit": None}, " 7 ", 7.5, True, None, "", "a/b", [7], {"x": 7}]
    register(catalogue, *(new_file(f"data/{i:02}", metadata={"entry": {"scan": v}}) for i, v in enumerate(values)))
    assert runs(catalogue) == {"7": [f"data/{i:02}" for i in range(5)]}
    register(catalogue, new_file("data/00", content=b"2", number=2, metadata={"entry": {"scan": 8}}))
    assert runs(catalogue) == {"7": [f"data/{i:02}" for i in range(1, 5)], "8": ["data/00"]}


def test_a_rule_that_is_removed_takes_back_what_it_said_and_nothing_else(catalogue: Catalogue) -> None:
    uids = register(catalogue, *(f"data/{run}_{frame}.h5" for run in "ab" for frame in range(3)))
    kept = rule(catalogue, path="data/{run}_0.h5")
    made = rule(catalogue, path="*/{run}_*.h5")
    settle(catalogue)
    with catalogue.database.write() as tx:
        a = tx.runs.find(catalogue.experiment().uid, "a")
        assert a is not None
        tx.runs.add_files(a.uid, [uids[1]])
        other = tx.runs.add(NewRun(experiment_uid=catalogue.experiment().uid, name="c"), by="ada")
    remove(catalogue, made)
    register(catalogue, "data/b_9.h5")
    settle(catalogue)
    assert runs(catalogue) == {"a": ["data/a_0.h5", "data/a_1.h5"], "b": ["data/b_0.h5"], "c": []}
    remove(catalogue, kept)
    settle(catalogue)
    assert runs(catalogue) == {"a": ["data/a_1.h5"], "c": []}, "runs of which nothing is left but a name are forgotten"
    with pytest.raises(NotFoundError):
        remove(catalogue, kept)
    with catalogue.database.write() as tx:
        assert tx.runs.remove_files(a.uid, uids) == 1
        assert tx.runs.get(other.uid).state is RunState.RUNNING


def test_a_rule_of_a_type_holds_for_all_its_experiments(catalogue: Catalogue) -> None:
    for name in ("coffee", "tea"):
        with catalogue.database.write() as tx:
            tx.experiments.change(catalogue.experiment(name).uid, ExperimentChange(type="SAXS"))
        register(catalogue, "data/1_0", "data/1_1", "data/1_2", experiment=name)
    register(catalogue, "data/1_0", experiment="other")
    rule(catalogue, type="SAXS", path="data/{run}_?")
    settle(catalogue)
    register(catalogue, "data/2_0", experiment="tea")
    three = ["data/1_0", "data/1_1", "data/1_2"]
    assert runs(catalogue) == {"1": three}
    assert runs(catalogue, "tea") == {"1": three, "2": ["data/2_0"]}
    assert runs(catalogue, "other") == {}


def test_the_same_rule_is_made_once_and_there_are_not_too_many(catalogue: Catalogue) -> None:
    first = rule(catalogue, field="a")
    assert rule(catalogue, field="a").uid == first.uid
    assert rule(catalogue, type="SAXS", field="a").uid != first.uid
    for number in range(RULES_LIMIT - 1):
        rule(catalogue, field=f"b{number}")
    with pytest.raises(ConflictError):
        rule(catalogue, field="one-too-many")


def test_a_run_that_was_known_from_files_is_taken_over(catalogue: Catalogue) -> None:
    rule(catalogue, path="data/{sample}/{run}_*")
    register(catalogue, "data/Ag/1_0")
    uid = catalogue.experiment().uid
    with catalogue.database.write() as tx:
        inferred = tx.runs.find(uid, "1")
        assert inferred is not None
        started = tx.runs.start(inferred.uid, NewRun(experiment_uid=uid, name="1", start={"plan": "scan"}), by="ada")
        stopped = tx.runs.stop(started.uid, RunStop(stop={"status": None}), by="ada")
        history = tx.metadata.page(started.uid, after=None, limit=10).items
    assert stopped.metadata == {"path": {"sample": "Ag"}, "start": {"plan": "scan"}, "stop": {"status": None}}
    assert (stopped.state, stopped.started_at is not None, stopped.stopped_at is not None) == ("stopped", True, True)
    assert [set(change.patch) for change in history] == [{"stop"}, {"start"}]
    register(catalogue, "data/Ag/1_1")
    assert runs(catalogue) == {"1": ["data/Ag/1_0", "data/Ag/1_1"]}
