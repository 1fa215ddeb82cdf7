"""`dm catalog`, in this process, on real services."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import select, update

from beamkeeper.cli import system
from beamkeeper.cli.app import run
from beamkeeper.db.files.tables import ChecksumRow, FileRow, ReplicaRow, VersionRow
from beamkeeper.db.search.tables import SearchExperimentRow
from beamkeeper.domain.experiments import Experiment, NewExperiment
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.replication import Follower, Kind, SiteLink
from beamkeeper.domain.status import Service, Status
from beamkeeper.domain.users import NewUser, Role
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running, running

NUMBERS = count(1)
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as made:
        yield made


class Dm:
    """Runs `dm catalog` for an experiment of its own."""

    def __init__(self, beamline: Running, capsys: pytest.CaptureFixture[str], name: str) -> None:
        self._beamline = beamline
        self._capsys = capsys
        self.experiment: Experiment = beamline.client.experiments.create(
            NewExperiment(name=name, station=beamline.settings.station.name)
        )

    def fill(self, *paths: str | bytes, **changes: Any) -> None:
        service = self._beamline.as_service()
        service.credentials.mirror = self._beamline.client.credentials.mirror
        service.files.register([new_file(path, experiment_uid=self.experiment.uid, **changes) for path in paths])

    def __call__(self, *words: object, status: int = 0) -> str:
        assert run(["catalog", *map(str, words)]) == status
        printed = self._capsys.readouterr()
        return printed.out + printed.err

    def export(self, *words: object) -> str:
        return self("export", "--experiment", self.experiment.name, *words)

    def check(self, status: int = 0) -> list[tuple[str, str]]:
        printed = json.loads(self("check", "--experiment", self.experiment.name, "--json", status=status))
        return sorted((each["fault"], each["path"]) for each in printed["findings"])

    def damage(self, statement: Any) -> None:
        with self._beamline.contexts[Service.CATALOG].database.write() as tx:
            tx.session.execute(statement, execution_options={"synchronize_session": False})

    def empty(self) -> None:
        """Take the experiment's files out of the catalogue, as if they had been lost."""
        with self._beamline.contexts[Service.CATALOG].database.write() as tx:
            connection = tx.session.connection()
            files = f"SELECT id FROM files WHERE experiment_uid = '{self.experiment.uid.hex}'"  # noqa: S608
            versions = f"SELECT id FROM versions WHERE file_id IN ({files})"  # noqa: S608
            replicas = f"SELECT id FROM replicas WHERE version_id IN ({versions})"  # noqa: S608
            connection.exec_driver_sql(f"DELETE FROM verifications WHERE replica_id IN ({replicas})")  # noqa: S608
            connection.exec_driver_sql(f"DELETE FROM replicas WHERE version_id IN ({versions})")  # noqa: S608
            connection.exec_driver_sql(f"DELETE FROM checksums WHERE version_id IN ({versions})")  # noqa: S608
            connection.exec_driver_sql(f"DELETE FROM versions WHERE file_id IN ({files})")  # noqa: S608
            connection.exec_driver_sql(f"DELETE FROM files WHERE id IN ({files})")  # noqa: S608


@pytest.fixture
def dm(beamline: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Dm:
    monkeypatch.setenv("BEAMKEEPER_URL", beamline.urls[Service.STORAGE])
    monkeypatch.setenv("BEAMKEEPER_TOKEN", beamline.bootstrap.operator.token)
    return Dm(beamline, capsys, f"e{next(NUMBERS)}")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_is_exported_can_be_imported_again_as_it_was(dm: Dm, tmp_path: Path, kind: str) -> None:
    dm.fill(b"data/\xff\n.tif", "data/b", metadata={"energy": {"value": 7.1, "unit": "keV"}, "big": 2**53 + 1})
    dm.fill("data/b", content=b"more", number=2, chunks=("ab" * 32,))
    out = tmp_path / f"all.{kind}"
    assert "2 files are in" in dm.export("--out", out)
    before = dm.export()
    assert "2 existing" in dm("import", out)
    dm.empty()
    assert dm.export() == ""
    assert "2 created" in dm("import", out)
    assert dm.export() == before
    assert "2 existing" in dm("import", out)
    assert dm.check() == []


def test_an_import_never_changes_what_is_there(dm: Dm, tmp_path: Path) -> None:
    dm.fill("data/a", "data/b")
    out = tmp_path / "all.jsonl"
    dm.export("--out", out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    lines[0]["metadata"] = {"energy": 7}
    other = {**lines[1], "uid": lines[0]["uid"][:-4] + "abcd"}
    strange = {**lines[1], "uid": lines[0]["uid"][:-4] + "abce", "unknown": 1}
    nowhere = {**lines[1], "uid": lines[0]["uid"][:-4] + "abcf", "experiment_uid": lines[1]["uid"]}
    out.write_text("\n".join(json.dumps(line) for line in [*lines, other, strange, nowhere]) + "\n")
    before = dm.export()
    printed = dm("import", out, status=10)
    assert "1 existing, 1 differing, 3 refused" in printed
    for why in ("differs: it stays as it is", "under another uid", "unknown: Extra inputs", "there is no experiment"):
        assert why in printed
    assert dm.export() == before


def test_a_csv_has_a_line_for_each_file_and_gives_metadata_back(dm: Dm, beamline: Running, tmp_path: Path) -> None:
    dm.fill('data/a,"b', "data/c", metadata={"sample": {"name": "Ag\nX"}})
    out = tmp_path / "all.csv"
    dm.export("--out", out)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["size"], row["is_verified"]) for row in rows] == [
        ('data/a,"b', "5", "True"),
        ("data/c", "5", "True"),
    ]
    assert json.loads(rows[0]["metadata"]) == {"sample": {"name": "Ag\nX"}}
    rows[1]["metadata"] = '{"sample": {"mass": 2}}'
    rows += [{**rows[0], "uid": "x"}, {**rows[0], "metadata": "[1"}, {**rows[0], "metadata": '{"a": NaN}'}]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert "CSV holds no whole documents" in dm("import", out, status=2)
    printed = dm("import", out, "--metadata", status=10)
    assert "1 existing, 1 changed, 3 refused" in printed
    assert '"x" is no uid' in printed
    assert "line 6" in printed
    found = beamline.client.files.find(FileQuery(experiment_uid=dm.experiment.uid, glob="data/c"))
    assert [file.metadata for file in found] == [{"sample": {"name": "Ag\nX", "mass": 2}}]


def test_a_check_holds_the_search_index_against_a_recount(dm: Dm, beamline: Running) -> None:
    dm.fill("data/a", "data/b")
    database = beamline.contexts[Service.CATALOG].database

    def index() -> None:
        with database.write() as tx:
            while tx.search.step(1000):
                pass

    index()
    assert dm.check() == []
    dm.damage(update(SearchExperimentRow).where(SearchExperimentRow.uid == dm.experiment.uid).values(files=7))
    printed = dm("check", "--experiment", dm.experiment.name, status=10)
    assert "the search index counts 7 files of 10 bytes, and there are 2 of 10" in printed
    dm.fill("data/c")  # while the index is behind nothing is known
    assert dm.check() == []


def test_status_has_words_for_how_the_site_follows() -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    plain: dict[str, Any] = {
        "service": Service.CATALOG,
        "station": "8ID",
        "version": "1",
        "uptime_s": 1,
        "database": "",
    }

    def words(**values: Any) -> str:
        return "; ".join(system._following(Status(**plain, **values)))

    link = SiteLink(url="http://site", waiting=0, heard_at=now)
    assert words() == words(site=link) == ""
    cut_off = link.model_copy(update={"cut_off_since": now, "message": "no route to host"})
    assert words(site=cut_off).startswith("cut off from the site's catalogue since 2026-1")
    assert words(site=cut_off).endswith(": no route to host")
    assert "whole catalogue" in words(site=link.model_copy(update={"is_listing": True}))
    follower = Follower(station="9ID", kind=Kind.FILES, heard_at=now, waiting=7, unlisted=2, refused=1, message="why")
    runs = Follower(station="9ID", kind=Kind.RUNS, heard_at=now, waiting=1, unlisted=3)
    told = words(followers=(follower, runs))
    assert told.count("heard") == 1
    for each in (
        "9ID: heard 2026-1",
        "8 changes wait",
        "2 files of 9ID are not in",
        "3 runs of 9ID are not in",
        "1 files of 9ID were refused: why",
    ):
        assert each in told


def test_parquet_can_be_read_by_others(dm: Dm, tmp_path: Path) -> None:
    dm.fill(*(f"data/{i:04}" for i in range(300)), metadata={"a": 1})
    dm.fill("data/0000more", metadata={"a": 2})
    dm.export("a < 2", "--glob", "data/00*", "--out", tmp_path / "some.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "some.parquet")
    assert table.num_rows == 100
    assert table.column("size").to_pylist() == [5] * 100
    assert table.column("modified_at").to_pylist()[0].year == 2026
    assert "standard output" in dm("export", "--format", "parquet", status=2)


def test_an_export_is_within_ones_rights_and_an_import_is_for_administrators(
    dm: Dm, beamline: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dm.fill("data/a")
    out = tmp_path / "all.jsonl"
    dm.export("--out", out)
    own = beamline.client.experiments.create(
        NewExperiment(name=f"own{next(NUMBERS)}", station=beamline.settings.station.name)
    )
    username = f"u{next(NUMBERS)}"
    beamline.client.users.create(NewUser(username=username, password=PASSWORD))
    beamline.client.experiments.add_user(own.uid, username, Role.PI)
    token = beamline.as_().sessions.login(username, PASSWORD).token
    monkeypatch.setenv("BEAMKEEPER_TOKEN", token)
    assert dm("export", "--everywhere") == ""
    assert "there is no experiment" in dm("export", "--experiment", dm.experiment.name, status=6)
    assert "may not do" in dm("import", out, status=5)
    assert "may not do" in dm("check", "--experiment", own.name, status=5)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not JSON"),
        ("[1]", "no JSON object"),
        ('{"a": NaN}', "no number that JSON knows"),
        ("[" * 10**5, "JSON"),
    ],
)
def test_a_file_that_is_no_export_is_refused_with_the_line(dm: Dm, tmp_path: Path, text: str, why: str) -> None:
    out = tmp_path / "all.jsonl"
    out.write_text("\n" + text + "\n")
    printed = dm("import", out, status=2)
    assert why in printed
    assert "line 2" in printed
    assert "cannot be read" in dm("import", tmp_path / "none", status=2)
    assert "cannot be read as Parquet" in dm("import", out, "--format", "parquet", status=2)


def test_a_check_finds_what_does_not_fit_together(dm: Dm) -> None:
    names = ["gone", "ahead", "hidden", "bare", "claimed", "state", "proof", "good"]
    dm.fill(*(f"data/{name}" for name in names))
    assert dm.check() == []

    def of(name: str) -> Any:
        return (FileRow.experiment_uid == dm.experiment.uid) & (FileRow.path == f"data/{name}".encode())

    def version(name: str) -> Any:
        return select(VersionRow.id).join(FileRow, FileRow.id == VersionRow.file_id).where(of(name))

    dm.damage(update(FileRow).where(of("gone")).values(number=7))
    dm.damage(update(FileRow).where(of("ahead")).values(number=0))
    dm.damage(update(FileRow).where(of("hidden")).values(deleted_by="ada"))
    dm.damage(ChecksumRow.__table__.delete().where(ChecksumRow.version_id.in_(version("bare"))))  # type: ignore[attr-defined]
    dm.damage(update(VersionRow).where(VersionRow.id.in_(version("claimed"))).values(is_verified=False))
    dm.damage(update(ReplicaRow).where(ReplicaRow.version_id.in_(version("state"))).values(state="suspect"))
    dm.damage(update(ChecksumRow).where(ChecksumRow.version_id.in_(version("proof"))).values(value="ab" * 32))
    assert dm.check(status=10) == [
        ("hidden", "data/hidden"),
        ("newer-version", "data/ahead"),
        ("newest-missing", "data/ahead"),
        ("newest-missing", "data/gone"),
        ("no-checksum", "data/bare"),
        ("other-checksum", "data/proof"),
        ("untold", "data/claimed"),
        ("untold", "data/state"),
        ("untold", "data/state"),
    ]
    assert "8 files were checked, 9 faults found" in dm("check", "--experiment", dm.experiment.name, status=10)
