"""Manners of a whole station: what is set for reading from the source holds for its files."""

from __future__ import annotations

import os
import time
from pathlib import Path

from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.testing.station import experiment, station


def test_files_are_read_no_faster_than_the_hour_allows(tmp_path: Path) -> None:
    (source := tmp_path / "detector").mkdir()
    for number in range(4):
        (source / f"{number}.tif").write_bytes(os.urandom(250_000))
    settings = 'limits = ["00:00-24:00 1MB"]\nio_class = "idle"\n'
    with station(tmp_path, settings=settings) as made:
        client = made.start()
        of = experiment(client)
        began = time.monotonic()
        new = NewUpload(experiment_uid=of.uid, **path_fields(os.fsencode(source)[1:]))
        ended = client.uploads.wait(client.uploads.start(new).uid, timeout_s=60)
        assert ended.state is State.DONE
        assert time.monotonic() - began >= 0.9
        assert client.status(Service.ACQUISITION).last_error is None
