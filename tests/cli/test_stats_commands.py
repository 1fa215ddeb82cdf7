"""`dm stats` and `dm file facets`, in this process, on real services."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beamkeeper.cli.app import run
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.status import Service
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import running


def test_the_catalogue_is_shown_in_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Service.CATALOG, directory=tmp_path) as beamline:
        monkeypatch.setenv("BEAMKEEPER_URL", beamline.urls[Service.STORAGE])
        monkeypatch.setenv("BEAMKEEPER_TOKEN", beamline.bootstrap.operator.token)
        station = beamline.settings.station.name
        experiment = beamline.client.experiments.create(NewExperiment(name="coffee", station=station))
        service = beamline.as_service()
        service.credentials.mirror = beamline.client.credentials.mirror
        names = ["Ag", "Ag", "\x1b[31mAu"]
        service.files.register(
            [
                new_file(
                    f"data/{number}.tif",
                    experiment_uid=experiment.uid,
                    metadata={"sample": name, "energy": {"value": number, "unit": "keV"}},
                )
                for number, name in enumerate(names)
            ]
        )

        def dm(*words: str, status: int = 0) -> str:
            assert run(words) == status
            printed = capsys.readouterr()
            return printed.out + printed.err

        assert "about 3 files that have changed are not in these numbers yet" in dm("stats")
        with beamline.contexts[Service.CATALOG].database.write() as tx:
            assert tx.search.step(1000) == 3
        assert "coffee" in dm("stats")
        assert "3 files, 15 B in all" in dm("stats", "--by", "type", "--experiment", "coffee")
        assert json.loads(dm("--json", "stats", "--by", "directory", "--limit", "1"))["items"] == [
            {"name": "data", "experiment_uid": None, "files": 3, "bytes": 15}
        ]
        shown = dm("file", "facets", "sample", "energy", "none")
        assert "\x1b" not in shown
        assert "0 to 2" in shown
        assert "no file has it" in shown
        some = json.loads(dm("--json", "file", "facets", "sample", "--query", "energy >= 1keV"))
        assert {value["value"]: value["files"] for value in some["facets"][0]["values"]} == {"Ag": 1, "\x1b[31mAu": 1}
        assert (some["counted"], some["is_sample"]) == (2, False)
        assert "a..b" in dm("file", "facets", "a..b", status=2)
        kind = json.loads(dm("--json", "type", "create", "xpcs", "--index", "sample", "--index", "energy"))
        assert kind["index_keys"] == ["sample", "energy"]
        changed = json.loads(dm("--json", "type", "change", "xpcs", "--index", "sample", "--description", "speckle"))
        assert (changed["index_keys"], changed["description"]) == (["sample"], "speckle")
        changed = json.loads(dm("--json", "type", "change", "xpcs", "--index-all"))
        assert (changed["index_keys"], changed["description"]) == (None, "speckle")
        assert "about 3 files are being indexed" in dm("catalog", "reindex", "--yes")
