"""A second copy is whole or not there, is noted in the metadata, and somebody is told."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import tifffile

from beamkeeper.cli.demo.rings import Rings
from beamkeeper.domain.errors import DestinationError
from beamkeeper.library import pictures, second_copy
from beamkeeper.library.__main__ import main
from library.beamline import Beamline


@contextmanager
def serving(server: Any) -> Iterator[int]:
    """Let a server answer, and give its port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Hook(BaseHTTPRequestHandler):
    """Keeps the documents that are posted."""

    told: list[Any]

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Post(socketserver.StreamRequestHandler):
    """Takes mail, as much of SMTP as that needs."""

    told: list[str]

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            word = line[:4].upper()
            self.wfile.write({b"DATA": b"354 go on\r\n", b"QUIT": b"221 bye\r\n"}.get(word, b"250 yes\r\n"))
            if word == b"DATA":
                lines = iter(self.rfile.readline, b".\r\n")
                self.told.append(b"".join(lines).decode())
                self.wfile.write(b"250 taken\r\n")
            if word == b"QUIT":
                return


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A second place."""
    (tmp_path / "tape").mkdir()
    return tmp_path / "tape"


def test_a_copy_is_made_noted_and_told(beamline: Beamline, tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "two $(words).dat").write_bytes(b"counts" * 1000)
    beamline.keep(tmp_path / "two $(words).dat")
    hook: list[Any] = []
    with serving(HTTPServer(("127.0.0.1", 0), type("Kept", (Hook,), {"told": hook}))) as port:
        to = [f"to:rclone::local:{elsewhere}", f"url:http://127.0.0.1:{port}/done"]
        beamline.dm("workflow", "install", "second-copy", "label:tape", *to)
        beamline.run("second-copy", "data/two $(words).dat")
    copy = elsewhere / beamline.experiment.name / "data/two $(words).dat"
    assert copy.read_bytes() == b"counts" * 1000
    noted: Any = beamline.file("data/two $(words).dat").metadata["copies"]
    assert noted["tape"]["verified"] == "read-back"
    assert [told["text"] for told in hook] == [f"1 files of coffee are at rclone::local:{elsewhere}"]


def test_what_a_daq_brings_is_copied(
    beamline: Beamline, tmp_path: Path, elsewhere: Path, picture: Callable[[Path, str], None]
) -> None:
    seen, name = tmp_path / "seen", "a $(frame).tif"
    seen.mkdir()
    beamline.dm("workflow", "install", "second-copy", "--as", "to-tape", "label:tape", f"to:{elsewhere}")
    daq = beamline.watch(seen, "to-tape")
    tifffile.imwrite(seen / name, Rings(1).frame(0))
    beamline.started("to-tape")
    beamline.client.daqs.stop(daq.uid)
    copy = elsewhere / beamline.experiment.name / "data" / name
    assert copy.read_bytes() == beamline.local(f"data/{name}").read_bytes()
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    noted: Any = beamline.file(f"data/{name}").metadata["copies"]
    assert (noted["tape"]["at"], noted["tape"]["verified"]) == (str(copy), "read-back")
    pictures.image(tmp_path / "copy.png", tifffile.imread(copy))
    picture(tmp_path / "copy.png", "second-copy.png")


def test_mail_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[str] = []
    with serving(socketserver.TCPServer(("127.0.0.1", 0), type("Kept", (Post,), {"told": taken}))) as port:
        server = f"127.0.0.1:{port}"
        assert main(["notify", "3 files are there", "--mail", "ada@example.org", "--mail-server", server]) == 0
    assert "Subject: 3 files are there" in taken[0]
    assert "To: ada@example.org" in taken[0]
    assert main(["notify", "x", "--mail", "ada@example.org", "--mail-server", server]) == 1
    assert "was not taken" in capsys.readouterr().err


def test_a_place_that_is_not_mounted_gets_no_directory(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    words = [str(tmp_path / "a"), "--in-experiment", "data/a", "--experiment", "e", "--to", str(tmp_path / "none")]
    with pytest.raises(DestinationError, match="is it mounted"):
        second_copy.main(words)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("to", ["somewhere", "../up"])
def test_what_is_no_place_is_refused(tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("x")
    assert main(["second_copy", str(tmp_path / "a"), "--in-experiment", "data/a", "--experiment", "e", "--to", to]) == 1
    assert "is no place" in capsys.readouterr().err
