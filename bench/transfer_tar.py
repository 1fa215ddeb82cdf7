"""Measure the download of many files as one tar against `curl` of the same bytes from nginx, on loopback.

By turns, with the page cache warm for both; the best time of each counts, for what else the machine does slows both.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from report import Row

from beamkeeper.client import Client
from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.testing.daemons import daemon, listens, program
from beamkeeper.testing.servers import free_ports
from beamkeeper.testing.station import experiment, station

ASKED = 0.8
TURNS = 7
PATIENCE_S = 600.0


def sources(directory: Path, files: int, large: int) -> None:
    """Write many small files and two large ones."""
    directory.mkdir()
    for number in range(files):
        (directory / f"{number:05d}.dat").write_bytes(os.urandom(100_000))
    for number in range(2):
        (directory / f"large_{number}.dat").write_bytes(os.urandom(large))


def frozen(client: Client, source: Path) -> str:
    """Upload a directory, and return the address of its archive."""
    of = experiment(client)
    upload = client.uploads.start(NewUpload(experiment_uid=of.uid, **path_fields(os.fsencode(source)[1:])))
    ended = client.uploads.wait(upload.uid, timeout_s=PATIENCE_S)
    if ended.state is not State.DONE:
        raise SystemExit(f"the upload ended {ended.state}: {ended.message}")
    made = client.downloads.freeze(of.uid, "coffee", client.files.find(FileQuery(experiment_uid=of.uid)))
    return f"{client.url}/api/v1/sets/{made.uid}/archive"


@contextmanager
def nginx(root: Path) -> Iterator[str]:
    """Serve a directory as Debian's nginx does, and give its address."""
    (port,) = free_ports(1)
    kept = "".join(f"{kind}_temp_path {root}/waiting;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    settings = root / "nginx.conf"
    settings.write_text(
        f"daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/error.log; events {{}}\n"
        f"{'user root; ' if os.geteuid() == 0 else ''}http {{ access_log off; sendfile on; tcp_nopush on; {kept}\n"
        f"server {{ listen 127.0.0.1:{port}; root {root}/files; }} }}\n"
    )
    argv = [program("nginx", "nginx-light"), "-p", str(root), "-c", str(settings), "-e", str(root / "error.log")]
    with daemon(argv, root / "log", lambda: listens(port)):
        yield f"http://127.0.0.1:{port}"


def fetched(url: str, target: str, token: str = "") -> float:
    """Return how long `curl` takes; the token goes to it in a file that only we read."""
    asks = f'header = "Authorization: Bearer {token}"\n' if token else ""
    argv = ["curl", "-fsS", "--noproxy", "*", "-K", "-", "-o", target, url]
    began = time.perf_counter()
    subprocess.run(argv, input=asks.encode(), check=True)
    return time.perf_counter() - began


def digest(path: Path) -> str:
    """Return what tells one file from another."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare(files: int, large: int) -> Row:
    """Return the row of the tar download: how fast ours is, as a part of nginx's speed."""
    with tempfile.TemporaryDirectory(prefix="beamkeeper-bench-") as made:
        place = Path(made)
        (place / "files").mkdir()
        sources(place / "source", files, large)
        theirs, again = place / "files" / "coffee.tar", place / "again.tar"
        with station(place) as beamline:
            client = beamline.start()
            url, token = frozen(client, place / "source"), client.credentials.token or ""
            fetched(url, str(theirs), token)
            with nginx(place) as bare:
                fetched(f"{bare}/coffee.tar", str(again))
                if digest(again) != digest(theirs):
                    raise SystemExit("nginx gave other bytes")
                pairs = [
                    (fetched(url, "/dev/null", token), fetched(f"{bare}/coffee.tar", "/dev/null")) for _ in range(TURNS)
                ]
        size = theirs.stat().st_size
    ours, bare_s = (min(part) for part in zip(*pairs, strict=True))
    note = f"ours {ours:.2f} s, nginx {bare_s:.2f} s, the best of {TURNS} each; {size / 1e6:.0f} MB"
    return Row("speed of the tar download / curl from nginx", bare_s / ours, "x", least=ASKED, note=note)


if __name__ == "__main__":
    print(compare(*(int(word) for word in sys.argv[1:3] or ("1000", "200000000"))).line())
