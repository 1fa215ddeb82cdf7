"""`dm download` and `dm link`, in this process, on real services."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from beamkeeper.cli.app import run
from beamkeeper.domain.status import Service
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.shelf import Shelf
from beamkeeper.testing.station import until

Dm = Callable[..., str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as beamline:
        yield beamline


@pytest.fixture
def shelf(site: Running) -> Shelf:
    made = Shelf(site)
    made.put_all({b"data/a.tif": b"aaa", b"data/b.tif": b"bb", b"data/c.h5": b"c"})
    return made


@pytest.fixture
def dm(site: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dm:
    monkeypatch.setenv("BEAMKEEPER_URL", site.client.url)
    monkeypatch.setenv("BEAMKEEPER_TOKEN", site.client.credentials.token or "")

    def dm(*words: str, status: int = 0) -> str:
        assert run(list(words)) == status
        printed = capsys.readouterr()
        return printed.out + printed.err

    return dm


def test_download_brings_what_a_pattern_means_and_says_what_is_missing(dm: Dm, shelf: Shelf, tmp_path: Path) -> None:
    name, to = shelf.experiment.name, str(tmp_path / "to")
    assert "2 files, 5 B downloaded and verified" in dm("download", name, "*.tif", "--to", to)
    assert (tmp_path / "to/data/a.tif").read_bytes() == b"aaa"
    assert not (tmp_path / "to/data/c.h5").exists()
    (tmp_path / "to/data/b.tif").write_bytes(b"mine")
    told = dm("download", name, "--to", to, status=10)
    assert "1 file, 1 B downloaded and verified, 1 were there already, 1 FAILED" in told
    assert "data/b.tif: another file is there already" in told
    found = json.loads(dm("download", name, "--to", to, "--overwrite", "--json"))
    assert (found["files"], found["same"], found["failed"]) == (1, 2, 0)
    dm("download", name, "nothing", "--to", to, status=6)


def test_a_link_is_made_listed_used_and_revoked(dm: Dm, shelf: Shelf) -> None:
    name = shelf.experiment.name
    assert "dm link allow" in dm("link", "create", name, status=7)
    assert "allowed" in dm("link", "allow", name)
    made = json.loads(dm("link", "create", name, "*.tif", "--days", "2", "--note", "for Ada", "--json"))
    assert (made["link"]["files"], httpx2.get(made["url"], trust_env=False).status_code) == (2, 200)
    assert "for Ada" in dm("link", "list", name)
    assert "revoked" in dm("link", "revoke", made["link"]["uid"])
    assert httpx2.get(made["url"], trust_env=False).status_code == 404
    until(lambda: "archive of set" in dm("experiment", "deliveries", name), "the delivery")
