"""Reading from wherever a right copy is: one way for files, archives, links and arrays."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import h5py
import httpx2
import pytest

from beamkeeper.client.arrays import Dataset
from beamkeeper.client.fetching import Fetcher, Got
from beamkeeper.client.landing import Landing
from beamkeeper.core.archive import FilePart, FileSource
from beamkeeper.core.copies_read import CopiesRead, Places
from beamkeeper.core.proofs import Proofs
from beamkeeper.domain.arrays import FileChoice
from beamkeeper.domain.downloads import FileSet
from beamkeeper.domain.errors import DmError, NotFoundError, UnavailableError
from beamkeeper.domain.files import File, FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import Publicity
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.shelf import Shelf

NAME = b"data/scan.h5"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as services:
        (second := services.directory / "second").mkdir()
        services.client.storage_areas.add(NewStorageArea(name="second", station_url=second.as_uri(), path=str(second)))
        yield services


@pytest.fixture
def shelf(site: Running) -> Shelf:
    """An experiment with a file of arrays, and its copy in a second storage area."""
    with h5py.File(content := io.BytesIO(), "w") as file:
        file["frames"] = list(range(1000))
    made = Shelf(site, Publicity.PUBLIC)
    made.put(NAME, content.getvalue())
    there(made).parent.mkdir(parents=True)
    there(made).write_bytes(content.getvalue())
    return made


def there(shelf: Shelf) -> Path:
    return shelf.site.directory / "second" / shelf.experiment.directory / os.fsdecode(NAME)


def the_file(shelf: Shelf) -> File:
    (file,) = shelf.client.files.find(FileQuery(experiment_uid=shelf.experiment.uid))
    return file


def frozen(shelf: Shelf) -> FileSet:
    return shelf.client.downloads.freeze(shelf.experiment.uid, "coffee", iter([the_file(shelf)]))


def unpacked(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        opened = tar.extractfile(f"coffee/{NAME.decode()}")
        assert opened is not None
        return opened.read()


def by_file(shelf: Shelf) -> Callable[[], bytes]:
    file = the_file(shelf)
    return lambda: b"".join(shelf.client.downloads.read(file))


def by_archive(shelf: Shelf) -> Callable[[], bytes]:
    made = frozen(shelf)
    return lambda: unpacked(b"".join(shelf.client.downloads.archive(made.uid)))


def by_a_new_archive(shelf: Shelf) -> Callable[[], bytes]:
    def read() -> bytes:
        return by_archive(shelf)()

    return read


def by_link(shelf: Shelf) -> Callable[[], bytes]:
    _, url = shelf.client.links.create(frozen(shelf), datetime.now(UTC) + timedelta(days=1))
    return lambda: unpacked(httpx2.get(url, trust_env=False).content)


def by_arrays(shelf: Shelf) -> Callable[[], bytes]:
    def read() -> bytes:
        frames = shelf.client.arrays.open(the_file(shelf), None, lambda path: the_file(shelf))["frames"]
        assert isinstance(frames, Dataset)
        assert list(frames[10:13]) == [10, 11, 12]
        return shelf.files[NAME]

    return read


def away(shelf: Shelf) -> None:
    shelf.root.rename(shelf.root.with_name(f"{shelf.root.name} unmounted"))


def missing(shelf: Shelf) -> None:
    shelf.path(NAME).unlink()


def unreadable(shelf: Shelf) -> None:
    shelf.path(NAME).unlink()
    shelf.path(NAME).mkdir()


WAYS = [by_file, by_archive, by_a_new_archive, by_link, by_arrays]


@pytest.mark.parametrize("trouble", [away, missing, unreadable])
@pytest.mark.parametrize("way", WAYS)
def test_what_cannot_be_read_in_its_first_area_is_read_from_another(
    shelf: Shelf, way: Callable[[Shelf], Callable[[], bytes]], trouble: Callable[[Shelf], None]
) -> None:
    read = way(shelf)
    trouble(shelf)
    assert read() == shelf.files[NAME]


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_with_other_bytes_takes_nobodys_place(shelf: Shelf, way: Callable[[Shelf], Callable[[], bytes]]) -> None:
    read = way(shelf)
    content = bytearray(shelf.files[NAME])
    content[-1] ^= 1
    there(shelf).write_bytes(content)
    missing(shelf)
    with pytest.raises((NotFoundError, DmError, httpx2.RemoteProtocolError, tarfile.ReadError)):
        read()


def test_a_download_goes_on_from_another_copy_where_the_first_has_gone(shelf: Shelf, tmp_path: Path) -> None:
    made, file = frozen(shelf), the_file(shelf)
    whole = b"".join(shelf.client.downloads.archive(made.uid))
    half = file.size // 2
    begun = shelf.files[NAME][:half]
    away(shelf)
    assert begun + b"".join(shelf.client.downloads.read(file, half)) == shelf.files[NAME]
    assert b"".join(shelf.client.downloads.archive(made.uid, half)) == whole[half:]
    with Landing(tmp_path) as landing:
        assert Fetcher(shelf.client.downloads, landing, patience=1).fetch(file).got is Got.GOT
    assert (tmp_path / os.fsdecode(NAME)).read_bytes() == shelf.files[NAME]


def choice_of(shelf: Shelf) -> FileChoice:
    file = the_file(shelf)
    return FileChoice(**path_fields(NAME), version=1, checksum=str(file.checksums[0]))


def places_of(shelf: Shelf) -> Places:
    return Places(str(shelf.root), [str(shelf.site.directory / "second" / shelf.experiment.directory)])


def test_a_file_that_cannot_be_read_from_there_on_is_read_on_in_another_copy(shelf: Shelf) -> None:
    broken = os.open(shelf.root, os.O_RDONLY)  # reading it fails, as a bad block does
    missing(shelf)
    size = len(shelf.files[NAME])
    source = FileSource(broken, size, copies=CopiesRead(), where=places_of(shelf), choice=choice_of(shelf))
    pieces = source.pieces(100, size)
    part = next(pieces)
    assert isinstance(part, FilePart)
    assert part.read() == shelf.files[NAME][100:]
    pieces.close()
    source.close()


def slowly(descriptor: int, count: int, at: int) -> bytes:
    time.sleep(0.002)
    return os.pread(descriptor, min(count, 64), at)


def test_a_large_copy_is_proven_apart_from_requests_and_a_download_waits_for_it(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = shelf.site.contexts[Service.STORAGE].copies
    monkeypatch.setattr(copies, "proofs", proofs := Proofs(slowly))
    monkeypatch.setattr(proofs, "waits_s", 0.0, raising=False)
    file = the_file(shelf)
    missing(shelf)
    with pytest.raises(UnavailableError, match="to see that it is right") as told:
        b"".join(shelf.client.downloads.read(file))
    assert told.value.details["so_far"] != file.size
    with Landing(tmp_path) as landing:  # which gives up at once where nothing comes on
        assert Fetcher(shelf.client.downloads, landing, patience=1).fetch(file).got is Got.GOT
    assert (tmp_path / os.fsdecode(NAME)).read_bytes() == shelf.files[NAME]
    half = file.size // 2
    assert b"".join(shelf.client.downloads.read(file, half)) == shelf.files[NAME][half:]


def test_a_state_alone_is_no_reason_to_read_what_lies_in_another_area(shelf: Shelf) -> None:
    found, copies = there(shelf).stat(), CopiesRead()
    state = f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}"
    alone = FileChoice(**path_fields(NAME), state=state)
    missing(shelf)
    with pytest.raises(NotFoundError), copies.opened(places_of(shelf), alone):
        pass
    with copies.opened(places_of(shelf), choice_of(shelf)), copies.opened(places_of(shelf), alone) as opened:
        assert opened.state == state  # it was found right meanwhile


def test_an_area_that_hangs_is_left_for_another_and_not_asked_again_at_once(shelf: Shelf) -> None:
    back, asked = Event(), []

    def look(directory: str) -> None:
        asked.append(directory)
        if directory == str(shelf.root):
            back.wait(60)

    copies = CopiesRead(look, answers_s=0.05)
    for _ in range(3):
        with copies.opened(places_of(shelf), choice_of(shelf)) as opened:
            assert os.pread(opened.descriptor, 10**6, 0) == shelf.files[NAME]
            assert os.stat(opened.descriptor).st_ino == there(shelf).stat().st_ino
    assert asked.count(str(shelf.root)) == 1
    back.set()
