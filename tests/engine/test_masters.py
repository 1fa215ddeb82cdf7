"""What a master file links to, and how often it is looked after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.db.base import new_uid
from beamkeeper.db.masters import Links, Master
from beamkeeper.domain.experiments import Tree
from beamkeeper.domain.files import NewFile, Source, SourceIdentity
from beamkeeper.domain.names import to_b64
from beamkeeper.engine.masters import LONGEST_PAUSE, SHORTEST_PAUSE, links_of, pause_after
from beamkeeper.engine.scene import Scene
from beamkeeper.plugins.api import StoredFile
from beamkeeper.testing.beamline import Beamline, options

NOW = datetime(2026, 3, 1, tzinfo=UTC)
Linked = Callable[..., Links | None]


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Linked]:
    beamline = Beamline(f"sqlite:///{tmp_path / 'test.db'}", tmp_path / "storage")

    def ask(metadata: dict[str, Any], *, path: bytes = b"data/run/scan/m.h5", **asked: Any) -> Links | None:
        with beamline.database.write() as tx:
            daq = tx.acquisitions.add(beamline.experiment(), options(b"det/out", destination="run", **asked))
            scene = Scene.of(tx, daq.uid)
        new = NewFile(
            path_b64=to_b64(path),
            experiment_uid=beamline.experiment().uid,
            version_uid=new_uid(),
            number=1,
            size=1,
            source=Source(agent="det1", path="det/out/scan/m.h5"),
            identity=SourceIdentity(dev=1, ino=1, size=1, mtime_ns=1, ctime_ns=1),
            storage_area_uid=beamline.area.uid,
            modified_at=NOW,
            finished_at=NOW,
            transferred_at=NOW,
            metadata=metadata,
        )
        return links_of(StoredFile(new, None, b"/det/out/scan/m.h5"), scene)

    yield ask
    beamline.close()


def test_linked_files_are_looked_for_beside_the_master(linked: Linked) -> None:
    found = linked({"external_files": ["m_1.h5", "parts/m_2.h5", "./m_1.h5", "../other/m_3.h5"]})
    assert found is not None
    assert found.linked == [b"data/run/scan/m_1.h5", b"data/run/scan/parts/m_2.h5", b"data/run/other/m_3.h5"]


def test_absolute_names_below_the_watched_directory_are_what_was_taken_from_there(linked: Linked) -> None:
    found = linked({"external_files": ["/det/out/scan/m_1.h5", "/det/outside/m_2.h5"]})
    assert found is not None
    assert found.linked == [b"data/run/scan/m_1.h5", b"/det/outside/m_2.h5"]
    found = linked({"external_files": ["/det/out/a.h5"]}, tree=Tree.ANALYSIS)
    assert found is not None
    assert found.linked == [b"analysis/run/a.h5"]


def test_names_that_climb_out_can_only_be_missing(linked: Linked) -> None:
    found = linked({"external_files": ["../../../../x.h5"]})
    assert found is not None
    assert found.linked == [b"../x.h5"]


def test_most_files_link_to_nothing(linked: Linked) -> None:
    nothing: list[dict[str, Any]] = [{}, *({"external_files": value} for value in ([], "a", ["m.h5"]))]
    for metadata in nothing:
        assert linked(metadata) is None
    found = linked({"external_files": ["a.h5"], "external_files_unread": 3})
    assert found is not None
    assert found.unread == 3


@pytest.mark.parametrize(
    ("age_s", "pause"), [(0, SHORTEST_PAUSE), (600, timedelta(seconds=60)), (10**8, LONGEST_PAUSE)]
)
def test_what_has_been_missing_for_long_is_looked_for_seldom(age_s: float, pause: timedelta) -> None:
    created = NOW - timedelta(seconds=age_s)
    master = Master(1, new_uid(), new_uid(), b"m", new_uid(), 1, 0, [b"x"], is_told=True, created_at=created)
    assert pause_after(master, NOW) == pause
