"""`dm daq`, `dm upload`, `dm put` and `dm plugin`, on a real beamline: what is said, and the exit status."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from uuid6 import uuid7

from beamkeeper.cli import acquiring, following, sending
from beamkeeper.cli.app import run
from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, Finished, JournalState, Kind, State, Tally
from beamkeeper.domain.errors import InvalidError, SourceError
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.testing.beamline import Clock
from beamkeeper.testing.station import experiment, station


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with station(tmp_path_factory.mktemp("station")) as made:
        yield made.start()


@dataclass
class Dm:
    """The command line of somebody who is logged in, with an experiment of its own."""

    client: Client
    name: str
    capsys: pytest.CaptureFixture[str]
    status: int = 0
    err: str = ""

    def __call__(self, *words: object) -> str:
        self.capsys.readouterr()
        self.status = run([str(word) for word in words])
        said = self.capsys.readouterr()
        self.err = said.err
        return said.out

    def of_mine(self, *words: object) -> str:
        return self(*words, "--experiment", self.name)

    def stored(self) -> dict[str, int]:
        uid = self.client.experiments.get(self.name).uid
        return {str(file.path): file.size for file in self.client.files.find(FileQuery(experiment_uid=uid))}


@pytest.fixture
def dm(client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Dm:
    monkeypatch.setenv("BEAMKEEPER_URL", client.url)
    monkeypatch.setenv("BEAMKEEPER_TOKEN", client.credentials.token or "")
    monkeypatch.setenv("BEAMKEEPER_STATION", "TEST")
    name = experiment(client, f"e{uuid7().hex[-10:]}").name
    monkeypatch.setenv("BEAMKEEPER_MIRROR", client.credentials.mirror)
    return Dm(client, name, capsys)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    made = tmp_path / "scan 1"
    made.mkdir()
    for number in range(3):
        (made / f"{number}.tif").write_bytes(b"frame" * (number + 1))
    return made


def test_a_daq_from_start_to_stop(dm: Dm, scan: Path) -> None:
    said = dm.of_mine("daq", "start", scan, "sample:Si 111", "--quiet", "0.1s", "--destination", "run 1")
    assert dm.status == 0
    assert str(scan) in said
    assert "A file is finished at once when it is announced" in said
    said = dm.of_mine("daq", "stop")
    assert (dm.status, "is done: 3 files available (30 B)" in said) == (0, True)
    assert dm.stored() == {"data/run 1/0.tif": 5, "data/run 1/1.tif": 10, "data/run 1/2.tif": 15}
    shown = json.loads(dm.of_mine("daq", "show", "--json"))
    assert (shown["state"], shown["metadata"], shown["undelivered"]) == ("done", {"sample": "Si 111"}, [])
    uid = shown["uid"]
    assert "available" in dm("daq", "show", uid[-6:])
    assert dm("daq", "watch", uid).count("done") == 2
    assert [row["uid"] for row in json.loads(dm.of_mine("daq", "list", "--json"))] == [uid]
    assert dm.of_mine("daq", "stop") == ""
    assert (dm.status, "no DAQ is running" in dm.err) == (6, True)


@pytest.mark.parametrize("noun", ["daq", "upload"])
def test_a_workflow_is_asked_for_by_options(dm: Dm, scan: Path, noun: str) -> None:
    stages: dict[str, Any] = {"1": {"command": "echo $bins"}}
    name = f"average-{noun}"
    dm.client.workflows.add(
        checked_definition({"name": name, "arguments": {"bins": {"type": "int"}}, "stages": stages})
    )
    dm.of_mine(noun, "start", scan, "--workflow-per", "run")
    assert (dm.status, "--workflow NAME" in dm.err) == (2, True)
    words = ("--workflow-arg", "bins:5", "--workflow-per", "2", "--workflow-at", "ready", "--workflow-only", "*.tif")
    dm.of_mine(noun, "start", scan, "--workflow", name, *words, "--workflow-again")
    assert dm.status == 0, dm.err
    plan = json.loads(dm.of_mine(noun, "list", "--json"))[0]["workflow"]
    assert plan == {
        "workflow": name,
        "owner": None,
        "arguments": {"bins": "5"},
        "only": ["*.tif"],
        "per": 2,
        "at": "ready",
        "again": True,
    }
    dm.of_mine(noun, "stop")


def test_files_are_put_first(dm: Dm, scan: Path) -> None:
    dm.of_mine("daq", "start", scan, "--quiet", "0.1", "--first", "*.h5")
    uid = json.loads(dm.of_mine("daq", "show", "--json"))["uid"]
    assert "go before all others" in dm("daq", "prioritise", uid[-8:], "2.*")
    assert json.loads(dm.of_mine("daq", "show", "--json"))["first"] == ["2.*"]
    assert "No file of DAQ" in dm("daq", "prioritise", uid, "--none")
    dm("daq", "prioritise", uid)
    assert (dm.status, "--none" in dm.err) == (2, True)
    dm.of_mine("daq", "stop")


def test_files_that_were_there_are_ignored_and_counted(dm: Dm, scan: Path) -> None:
    dm.of_mine("daq", "start", scan, "--ignore-existing")
    said = dm.of_mine("daq", "stop")
    assert dm.status == 0
    assert "0 files available" in said
    assert "there before" in said
    assert dm.stored() == {}


def test_a_directory_that_is_held_is_refused_and_can_be_taken_over(dm: Dm, scan: Path) -> None:
    dm.of_mine("daq", "start", scan, "--quiet", "0.1")
    dm.of_mine("upload", "start", scan)
    assert (dm.status, f'"{dm.name}"' in dm.err) == (7, True)
    dm.of_mine("daq", "start", scan, "--take-over", "--quiet", "0.1")
    assert dm.status == 0
    for daq in dm.client.daqs.list(experiment_uid=dm.client.experiments.get(dm.name).uid):
        dm("daq", "stop", daq.uid) if daq.state is State.RUNNING else dm("daq", "watch", daq.uid)
        assert dm.status == 0
    assert dm.stored() == {f"data/{number}.tif": 5 * (number + 1) for number in range(3)}


def test_an_upload_is_followed_to_its_end(dm: Dm, scan: Path) -> None:
    said = dm.of_mine("upload", "start", scan, "--include", "*.tif", "--exclude", "2*", "--follow")
    assert (dm.status, "2 files available" in said) == (0, True)
    said = dm.of_mine("upload", "start", scan, "--include", "0.tif", "--follow", "--analysis")
    assert (dm.status, "1 file available" in said) == (0, True), said
    assert sorted(dm.stored()) == ["analysis/0.tif", "data/0.tif", "data/1.tif"]
    said = dm.of_mine("upload", "start", scan, "--follow")
    assert "1 file available (15 B), and 2 files stored before and unchanged" in said
    assert "not delivered" not in said


def test_what_is_not_delivered_is_listed_and_ends_with_status_10(dm: Dm, scan: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "1.tif").write_bytes(b"other bytes under the same name")
    dm.of_mine("upload", "start", scan, "--follow")
    said = dm.of_mine("upload", "start", other, "--follow")
    assert dm.status == 10
    assert "1.tif" in said
    assert "quarantined" in said
    assert "other source" in said or "another source" in said
    dm.of_mine("upload", "watch")
    assert dm.status == 10
    shown = json.loads(dm.of_mine("upload", "show", "--json"))
    assert [e["path"] for e in shown["undelivered"]] == ["1.tif"]
    assert f"`dm upload retry {shown['uid']}` tries again what is quarantined." in dm.of_mine("upload", "show")
    assert "`dm daq retry`" in dm("ledger", "show", dm.name)

    dm("upload", "retry", shown["uid"], "2.*")
    assert (dm.status, 'no quarantined file matches "2.*"' in dm.err) == (7, True)
    (other / "1.tif").write_bytes(b"frame" * 2)  # what the experiment has
    said = dm("upload", "retry", shown["uid"][-8:], "1.tif", "--follow")
    assert (dm.status, "is done: 1 file available" in said) == (0, True), said
    dm("upload", "retry", shown["uid"])
    assert (dm.status, "it has no quarantined files" in dm.err) == (7, True)


def test_the_mode_of_verification_is_told(dm: Dm, scan: Path) -> None:
    assert "Each copy is read back before it gets its name." in dm.of_mine("daq", "start", scan)
    dm.of_mine("daq", "stop")
    said = dm.of_mine("put", scan / "0.tif", "--destination", "again", "--verify", "none")
    assert (dm.status, "stored, verified" in said, "stored unverified" in said) == (0, False, True)
    assert "read only when a scrub is asked for" in dm.of_mine("upload", "show")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory, which is where the commands are run."""
    made = tmp_path / "empty"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["upload", "start", "missing"], 9, "does not exist"),
        (["upload", "start", "."], 9, "no files"),
        (["daq", "start", "missing"], 9, "--wait"),
        (["daq", "start", "/"], 2, "root directory"),
        (["daq", "start", ".", "--processor", "nonesuch"], 6, 'no plugin "nonesuch"'),
        (["daq", "start", ".", "sample"], 2, "key:value"),
        (["daq", "start", ".", "--quiet", "soon"], 2, "is no time"),
        (["daq", "start", ".", "--quiet", "2d"], 2, "quiet_s"),
        (["daq", "start", ".", "--destination", "../up"], 2, "plain relative path"),
        (["daq", "start", ".", "--destination", "\udcff"], 2, "destination"),
        (["put", "missing"], 9, "cannot be read"),
        (["put", "."], 2, "--recursive"),
        (["put", ".", "-r"], 2, "no files"),
    ],
)
def test_bad_input_is_one_sentence_and_a_status(dm: Dm, words: list[str], status: int, sentence: str) -> None:
    assert dm.of_mine(*words) == ""
    assert (dm.status, sentence in dm.err) == (status, True), dm.err
    assert list(dm.client.daqs.list(experiment_uid=dm.client.experiments.get(dm.name).uid)) == []


def test_without_an_experiment_it_says_how_to_name_one(dm: Dm, scan: Path) -> None:
    dm("daq", "start", scan)
    assert (dm.status, "--experiment" in dm.err) == (2, True)


def test_files_are_put_and_said_to_be_stored(dm: Dm, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"by hand")
    (scan / "link").symlink_to("0.tif")
    said = dm.of_mine("put", "-r", scan, tmp_path / "notes.txt", "--destination", "laptop", "--meta", "by:me")
    assert "stored, verified and catalogued" in said
    assert (dm.status, "link" in dm.err) == (10, True)
    stored = {f"data/laptop/scan 1/{number}.tif": 5 * (number + 1) for number in range(3)}
    assert dm.stored() == {**stored, "data/laptop/notes.txt": 7}
    dm.of_mine("put", tmp_path / "notes.txt", "--no-wait", "--json")
    assert dm.status == 0


def test_plugins_are_listed(dm: Dm) -> None:
    said = dm("plugin", "list")
    assert "catalogue" in said
    assert {"copy", "metadata"} <= {row["name"] for row in json.loads(dm("plugin", "list", "--json"))}


# What needs no beamline


def test_files_to_be_put_keep_their_names_below_their_directory(scan: Path, tmp_path: Path) -> None:
    deep = scan / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "x").touch()
    (scan / "up").symlink_to(scan)
    os.mkfifo(scan / "pipe")
    (tmp_path / "by link").symlink_to(scan / "0.tif")
    chosen = sending.choose([str(scan) + "/", str(tmp_path / "by link")], recursive=True)
    names = sorted(bytes(path) for path, _ in chosen.files)
    assert names == [b"by link", b"scan 1/0.tif", b"scan 1/1.tif", b"scan 1/2.tif", b"scan 1/a/b/x"]
    assert sorted(os.path.basename(path) for path in chosen.left_out) == [b"pipe", b"up"]


def test_two_files_of_one_name_are_not_put_together(scan: Path, tmp_path: Path) -> None:
    (tmp_path / "0.tif").touch()
    with pytest.raises(InvalidError, match=r"would both be \"0\.tif\""):
        sending.choose([str(scan / "0.tif"), str(tmp_path / "0.tif")], recursive=False)


@pytest.mark.usefixtures("as_anybody")
def test_a_directory_that_cannot_be_read_is_not_put_in_part(scan: Path) -> None:
    closed = scan / "closed"
    closed.mkdir(mode=0)
    try:
        with pytest.raises(SourceError, match="closed"):
            sending.choose([str(scan)], recursive=True)
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("1.5s", 1.5), ("30m", 1800.0), ("12h", 43200.0), ("2D", 172800.0)]
)
def test_times_are_written_as_people_write_them(text: str, seconds: float) -> None:
    assert acquiring.Duration().convert(text, None, None) == seconds


def test_the_rate_is_of_the_last_seconds() -> None:
    meter = following.Meter()
    assert meter.rate(0, 0.0) == 0.0
    assert meter.rate(1000, 1.0) == 1000.0
    assert meter.rate(1000, 7.0) == 0.0


def ended(state: State, **files: int) -> Acquisition:
    options: dict[str, Any] = dict.fromkeys(("include", "exclude", "skip_processors"), ())
    options |= dict.fromkeys(("quiet_s", "processors", "max_run_time_s"))
    return Acquisition(
        uid=uuid7(),
        kind=Kind.DAQ,
        state=state,
        experiment_uid=uuid7(),
        experiment="coffee",
        agent="det1",
        path="det",
        destination="",
        tree=Tree.DATA,
        with_hidden=True,
        with_existing=True,
        resend=False,
        finished=Finished.EVIDENCE,
        metadata={},
        started_by="ada",
        created_at=Clock().now,
        tallies=[Tally(state=JournalState(name), files=number, bytes=0) for name, number in files.items()],
        **options,
    )


@pytest.mark.parametrize(
    ("item", "is_stopped", "status"),
    [
        (ended(State.DONE, available=3, skipped=1, vanished=1), False, 0),
        (ended(State.DONE, available=3, quarantined=1), False, 10),
        (ended(State.FAILED, available=3), False, 10),
        (ended(State.ABORTED, available=3), False, 10),
        (ended(State.ABORTED, available=3), True, 0),
        (ended(State.ABORTED, ready=1), True, 10),
    ],
)
def test_the_exit_status_says_whether_all_is_well(item: Acquisition, is_stopped: bool, status: int) -> None:
    assert following.exit_status(item, is_stopped=is_stopped) == status


def test_a_name_cannot_steer_the_terminal_from_the_live_table() -> None:
    item = ended(State.RUNNING, available=1).model_copy(update={"message": "\x1b[2J[bold]x"})
    assert "\x1b" not in str(following.table(item, 0.0).caption)


def test_a_daq_is_started_and_stopped_by_way_of_the_site(dm: Dm, scan: Path) -> None:
    said = dm.of_mine("daq", "start", scan, "--via-site")
    assert (dm.status, dm.err) == (0, "")
    assert f"of experiment {dm.name} is " in said
    (started,) = [daq for daq in json.loads(dm("daq", "list", "--json")) if daq["experiment"] == dm.name]
    assert started["uid"] in said
    dm.of_mine("daq", "stop", "--via-site")
    assert (dm.status, "say which" in dm.err) == (2, True)
    said = dm.of_mine("daq", "stop", started["uid"], "--via-site")
    assert (dm.status, started["uid"] in said) == (0, True)
    listed = json.loads(dm("station", "commands", "TEST", "--json"))[:2]
    assert [(row["kind"], row["state"]) for row in listed] == [("stop", "done"), ("start-daq", "done")]
    assert "start-daq" in dm("station", "commands", "TEST")


def test_what_the_station_refuses_is_told_by_way_of_the_site(dm: Dm, tmp_path: Path) -> None:
    dm.of_mine("upload", "start", tmp_path / "absent", "--via-site")
    assert (dm.status, "station TEST refused: " in dm.err) == (9, True)
    assert "absent" in dm("station", "commands", "TEST")
