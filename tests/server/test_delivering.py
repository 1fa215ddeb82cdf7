"""Large files on their way to a client: sent by the kernel, byte for byte, and to nobody who has gone."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from beamkeeper.core.archive import LARGE, FilePart
from beamkeeper.domain.errors import DmError
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.status import Service
from beamkeeper.server.direct import Direct, GoneError, Protocol
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.shelf import Shelf
from beamkeeper.testing.station import until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.CATALOG, directory=tmp_path_factory.mktemp("site")) as services:
        yield services


@pytest.fixture
def shelf(site: Running) -> Shelf:
    return Shelf(site)


def address(shelf: Shelf, path: bytes) -> str:
    return f"/api/v1/experiments/{shelf.experiment.uid}/content?path_b64={to_b64(path)}"


def test_large_files_are_sent_whole_in_parts_and_again_on_the_same_connection(shelf: Shelf) -> None:
    content = os.urandom(3 * LARGE + 7)
    shelf.put(b"data/large", content)
    headers, path = shelf.client.credentials.headers(), address(shelf, b"data/large")
    with httpx2.Client(base_url=shelf.client.url, headers=headers, trust_env=False) as one:
        for _ in range(2):
            assert one.get(path).content == content
        part = one.get(path, headers={"Range": f"bytes={LARGE + 1}-{2 * LARGE}"})
        assert (part.status_code, part.content) == (206, content[LARGE + 1 : 2 * LARGE + 1])
        several = one.get(path, headers={"Range": "bytes=0-9,100-"}).content
        assert content[:10] in several
        assert content[100:] in several
        assert one.get("/api/v1/whoami").json()["user"]["username"]


def test_an_empty_file_is_delivered_whole(shelf: Shelf) -> None:
    shelf.put(b"data/empty", b"")
    headers, path = shelf.client.credentials.headers(), address(shelf, b"data/empty")
    with httpx2.Client(base_url=shelf.client.url, headers=headers, trust_env=False) as one:
        answer = one.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    until(lambda: list(shelf.client.downloads.deliveries(shelf.experiment.uid)), "the record of it")
    (told,) = shelf.client.downloads.deliveries(shelf.experiment.uid)
    assert (told.is_whole, told.message) == (True, "")


def test_an_archive_mixes_what_the_kernel_sends_with_what_is_read(shelf: Shelf) -> None:
    contents = {b"data/%02d" % n: os.urandom(size) for n, size in enumerate((LARGE, 3, LARGE - 1, 2 * LARGE + 1, 0))}
    shelf.put_all(contents)
    files = shelf.client.files.find(FileQuery(experiment_uid=shelf.experiment.uid))
    made = shelf.client.downloads.freeze(shelf.experiment.uid, "coffee", files)
    got = httpx2.get(
        f"{shelf.client.url}/api/v1/sets/{made.uid}/archive",
        headers=shelf.client.credentials.headers(),
        trust_env=False,
    )
    with tarfile.open(fileobj=io.BytesIO(got.content)) as archive:
        found = {member.name: archive.extractfile(member) for member in archive}
        assert {name: file.read() for name, file in found.items() if file} == {
            f"coffee/{path.decode()}": content for path, content in contents.items()
        }


def test_a_client_that_goes_is_recorded_with_what_it_got(shelf: Shelf) -> None:
    shelf.put(b"data/large", bytes(40_000_000))
    url = urlsplit(shelf.client.url)
    with socket.create_connection((url.hostname or "", url.port or 0)) as one:
        token = shelf.client.credentials.token
        asks = f"GET {address(shelf, b'data/large')} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        one.sendall(asks.encode())
        got = b""
        while len(got) < LARGE:
            got += one.recv(LARGE)
        assert got.startswith(b"HTTP/1.1 200")

    def told() -> bool:
        found = list(shelf.client.downloads.deliveries(shelf.experiment.uid))
        return bool(found) and not found[0].is_whole and 0 < found[0].end_byte < 40_000_000

    until(told, "that it went")


def test_a_file_that_became_shorter_breaks_the_answer_off(shelf: Shelf, site: Running) -> None:
    shelf.put(b"data/large", bytes(40_000_000))
    plain: Path = site.area / shelf.experiment.directory / "data/large"
    url, headers = shelf.client.url + address(shelf, b"data/large"), shelf.client.credentials.headers()
    with httpx2.Client(trust_env=False) as one, one.stream("GET", url, headers=headers) as answer:
        blocks = answer.iter_raw(1000)
        next(blocks)
        os.truncate(plain, 1000)
        with pytest.raises(httpx2.RemoteProtocolError):
            list(blocks)


def test_a_file_that_cannot_be_read_is_told_from_a_client_that_went(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(LARGE))

    async def push() -> None:
        near, far = socket.socketpair()
        protocol = Protocol(Config(None, log_config=None), ServerState(), {})  # type: ignore[arg-type]
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, near)
        file = (tmp_path / "large").open("rb")
        unreadable = (tmp_path / "other").open("wb")
        with file, unreadable, Direct(protocol) as direct:
            await direct.begin(5)
            with pytest.raises(DmError, match='"large" cannot be read'):
                direct.push(iter([FilePart(unreadable.fileno(), 0, LARGE, "large")]))
            far.close()
            with pytest.raises(GoneError):
                direct.push(iter([FilePart(file.fileno(), 0, LARGE, "large")]))
        transport.abort()

    asyncio.run(push())
