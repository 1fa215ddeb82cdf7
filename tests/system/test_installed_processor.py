"""A station uses a processor that a beamline wrote and installed: for all its files, for some, and when it fails."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import Acquisition, JournalState, NewUpload, State
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.testing.packages import install_processor
from beamkeeper.testing.station import Station, experiment, station

J = JournalState

SETTINGS = """
attempts = 2
processors = ["metadata", "counts", "catalogue"]
[processor.counts]
letter = "b"
"""

PROCESSOR = '''
"""Counts the bytes that are a certain letter; one name is its death, another one works when it is tried again."""

from beamkeeper.plugins.api import Options, Processed


class CountsOptions(Options):
    letter: str = "a"


class CountsProcessor:
    options = CountsOptions
    summary = "Counts letters."

    def __init__(self, options):
        self.letter = options.letter.encode()
        self.alone = 0

    def process(self, files, context):
        return [self.count(file, len(files) == 1) for file in files]

    def count(self, file, is_alone):
        if file.new.relpath.endswith(b"poison.dat"):
            raise ValueError("this frame is poison")
        if file.new.relpath.endswith(b"moody.dat"):
            self.alone += is_alone
            if self.alone < 2:
                raise OSError("not now")
        return Processed(file.new.version_uid, {"count": file.local_path.read_bytes().count(self.letter)})
'''


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, Client]]:
    """A station whose settings name the processor."""
    site = install_processor(
        tmp_path_factory.mktemp("package"),
        package="beamline-counts",
        name="counts",
        factory="CountsProcessor",
        source=PROCESSOR,
    )
    with pytest.MonkeyPatch.context() as patch, station(tmp_path_factory.mktemp("station"), settings=SETTINGS) as made:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield made, made.start()


def upload(client: Client, to: Experiment, files: Mapping[str, bytes], source: Path, **options: Any) -> Acquisition:
    """Write files and upload them."""
    source.mkdir()
    for name, content in files.items():
        (source / name).write_bytes(content)
    fields = {"experiment_uid": to.uid, **path_fields(os.fsencode(source)[1:]), **options}
    return client.uploads.wait(client.uploads.start(NewUpload.model_validate(fields)).uid, timeout_s=60)


def counts(client: Client, of: Experiment) -> dict[str | None, Any]:
    """What the processor found of each file that is catalogued."""
    return {file.path: file.metadata.get("count") for file in client.files.find(FileQuery(experiment_uid=of.uid))}


def test_the_stations_chain_has_a_processor_that_somebody_installed(
    running: tuple[Station, Client], tmp_path: Path
) -> None:
    client = running[1]
    of = experiment(client, "all")
    ended = upload(client, of, {"a.dat": b"abba", "b.dat": b"aaa"}, tmp_path / "source")
    assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, 2), ended
    assert counts(client, of) == {"data/a.dat": 2, "data/b.dat": 0}
    (plugin,) = [plugin for plugin in client.plugins.list() if plugin.name == "counts"]
    assert (plugin.package, plugin.version, plugin.is_active) == ("beamline-counts", "3.2.1", True)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"skip_processors": ["counts"]}, None),
        ({"processors": ["catalogue"]}, None),
        ({"processors": ["counts", "catalogue"]}, 1),
        ({"processors": ["counts", "catalogue"], "skip_processors": ["counts"]}, None),
    ],
)
def test_one_upload_does_without_a_processor_or_has_a_chain_of_its_own(
    running: tuple[Station, Client], tmp_path: Path, options: dict[str, Any], count: int | None
) -> None:
    client = running[1]
    of = experiment(client, f"some-{'-'.join(options)}-{count}".replace("_", "-"))
    assert upload(client, of, {"a.dat": b"b"}, tmp_path / "source", **options).state is State.DONE
    assert counts(client, of) == {"data/a.dat": count}


def test_a_file_that_a_processor_fails_for_is_tried_again_and_put_aside_while_the_others_arrive(
    running: tuple[Station, Client], tmp_path: Path
) -> None:
    made, client = running
    of = experiment(client, "fails")
    good = {f"{number}.dat": b"b" * number for number in range(20)}
    files = {**good, "moody.dat": b"bb", "poison.dat": b"bbb"}
    ended = upload(client, of, files, tmp_path / "source")
    assert counts(client, of) == {**{f"data/{name}": len(good[name]) for name in good}, "data/moody.dat": 2}
    (entry,) = client.uploads.entries(ended.uid, J.QUARANTINED)
    assert (entry.path, entry.reason_code, entry.attempts) == ("poison.dat", "processor", 2)
    assert entry.reason == 'processor "counts": ValueError: this frame is poison'
    assert ended.state is State.FAILED
    # Its bytes are safe all the same.
    assert (made.storage / of.directory / "data" / "poison.dat").read_bytes() == b"bbb"
