"""Small pictures of a whole station: files do not wait for them, and SIGKILL at any step loses none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from beamkeeper.config.failpoints import VARIABLE, PicturePoint
from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.testing.station import Station, experiment, station, until

FILES = 40


def killed(made: Station) -> None:
    until(lambda: all(process.poll() is not None for process in made.processes), "the kill")
    made.kill()


def test_pictures_survive_a_kill_at_each_of_their_steps(tmp_path: Path) -> None:
    (source := tmp_path / "detector").mkdir()
    for number in range(FILES):
        tifffile.imwrite(source / f"{number:02}.tif", np.full((32, 32), number, np.uint16))
    (source / "note.txt").write_text("no picture")
    with station(tmp_path) as made:
        client = made.start({VARIABLE: f"{PicturePoint.PICTURES_MAKING}:stop"})
        of = experiment(client)
        new: dict[str, Any] = {"experiment_uid": of.uid, **path_fields(os.fsencode(source)[1:])}
        uid = client.uploads.start(NewUpload.model_validate(new)).uid
        until(lambda: _is_stopped(made.pid), "the first picture")
        made.kill()
        made.launch(environ={VARIABLE: f"{PicturePoint.PICTURES_KEPT}:kill"})
        killed(made)
        client = made.start()
        assert client.uploads.wait(uid, timeout_s=60).state is State.DONE
        until(lambda: client.status(Service.ACQUISITION).queues.get("pictures", 0) == 0, "the pictures")
        found = {file.path: file for file in client.files.find(FileQuery(experiment_uid=of.uid))}
        frames = {path: file for path, file in found.items() if path and path.endswith(".tif")}
        assert len(client.thumbnails.of(of.uid, [file.version_uid for file in frames.values()])) == FILES
        told: list[Any] = [file.metadata["frame"] for file in frames.values()]
        assert sorted(one["max"] for one in told) == list(range(FILES))
        assert all(len(client.files.history(file.uid).versions) == 1 for file in list(frames.values())[:3])
        bright = FileQuery(experiment_uid=of.uid, query="frame.max >= 30")
        until(lambda: len(list(client.files.find(bright))) == 10, "the search index")


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
