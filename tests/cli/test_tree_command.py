"""`dm file tree`, in this process, on real services."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from beamkeeper.cli.app import run
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.status import Service
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import running


def test_a_tree_shows_what_is_in_a_file_that_lies_in_the_storage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def dm(*words: str, status: int = 0) -> str:
        assert run(["file", "tree", *words, "--experiment", "coffee"]) == status
        printed = capsys.readouterr()
        return printed.out + printed.err

    with running(Service.CATALOG, directory=tmp_path) as site:
        monkeypatch.setenv("BEAMKEEPER_URL", site.urls[Service.STORAGE])
        monkeypatch.setenv("BEAMKEEPER_TOKEN", site.bootstrap.operator.token)
        monkeypatch.setenv("COLUMNS", "200")
        new = NewExperiment(name="coffee", station=site.settings.station.name)
        coffee = site.client.experiments.create(new)
        with h5py.File(site.area / coffee.directory / "data" / "scan.h5", "w") as file:
            data = file.create_dataset("entry/da\x1bta", data=np.zeros((4, 6)), chunks=(1, 6), compression="gzip")
            data.attrs["units"] = "counts"
            file["entry/more"] = h5py.ExternalLink("part.h5", "/data")
        (site.area / coffee.directory / "data" / "log.txt").write_text("no arrays")
        service = site.as_service()
        service.credentials.mirror = site.client.credentials.mirror
        service.files.register([new_file(f"data/{name}", experiment_uid=coffee.uid) for name in ("scan.h5", "log.txt")])
        shown = dm("data/scan.h5")
        assert "\x1b" not in shown
        assert "4 x 6" in shown
        assert "in chunks of 1 x 6, gzip" in shown
        assert "link to /data of part.h5" in shown
        assert "counts" in dm("data/scan.h5", "entry/da\x1bta", "--attributes")
        assert "more than these 1" in dm("data/scan.h5", "--limit", "1")
        names = [node["name"] for node in json.loads(dm("data/scan.h5", "--json"))["nodes"]]
        assert names == ["/", "/entry", "/entry/da\x1bta", "/entry/more"]
        assert "neither HDF5 nor TIFF" in dm("data/log.txt", status=2)
        assert 'no "/other"' in dm("data/scan.h5", "other", status=6)
