"""`dm demo` as a person runs it: to its end, on both kinds of database, killed in the middle, and with a wrong byte."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from base64 import urlsafe_b64decode
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3

from beamkeeper.cli.demo.run import EXIT_WANTING
from beamkeeper.client import Client
from beamkeeper.domain.files import FileKind, FileQuery
from beamkeeper.domain.names import ExperimentName
from beamkeeper.domain.status import Service
from beamkeeper.testing.servers import PostgresServer, drop_database, fresh_database
from beamkeeper.testing.station import until

DM = (sys.executable, "-c", "from beamkeeper.cli.app import main; main()")
Content = tuple[int, str]
"""The size of a file and its digest; of a link, those of its target's name."""


class Demo:
    """The demo of one home, which nobody else has."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.directory = Path(os.environ["XDG_DATA_HOME"]) / "beamkeeper-demo"

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*DM, "demo", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words) as process:
            out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def kill(self) -> int:
        """Kill every process that was started in this home: the demo, the detector, the supervisor, the services."""
        ours = b"HOME=" + os.fsencode(self.home)
        killed: set[int] = set()
        while found := {pid for pid in _pids() if ours in _environ(pid)} - killed:
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            killed |= found
        return len(killed)

    @property
    def experiment(self) -> str:
        (truth,) = self.directory.glob("*/truth.jsonl")
        return truth.parent.name

    @property
    def truth(self) -> dict[bytes, Content]:
        """What the detector says that it wrote last, of everything that can be stored."""
        found = {}
        for line in (self.directory / self.experiment / "truth.jsonl").read_text().splitlines():
            fields = json.loads(line)
            if fields["kind"] != "special":
                path = fields["path_b64"]
                found[urlsafe_b64decode(path + "=" * (-len(path) % 4))] = (fields["size"], fields["blake3"])
        return found

    @property
    def source(self) -> Path:
        return self.directory / self.experiment / "detector"

    @property
    def stored(self) -> Path:
        """Where the storage area has the experiment's data."""
        (found,) = self.directory.glob(f"beamline/storage/*/{self.experiment}/data")
        return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def contents(top: Path) -> dict[bytes, Content]:
    """Everything below a directory that is a file or a link, read here."""
    found = {}
    for parent, directories, names in os.walk(os.fsencode(top)):
        for name in (*names, *directories):
            path = os.path.join(parent, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                content = os.readlink(path)
            elif stat.S_ISREG(mode):
                content = Path(os.fsdecode(path)).read_bytes()
            else:
                continue
            found[os.path.relpath(path, os.fsencode(top))] = (len(content), blake3(content).hexdigest())
    return found


def catalogued(demo: Demo) -> dict[bytes, Content]:
    """What the catalogue has, each path once, everything verified."""
    with Client(profile="demo") as client:
        experiment = client.experiments.get(ExperimentName(demo.experiment))
        files = list(client.files.find(FileQuery(experiment_uid=experiment.uid, glob="data/*")))
    assert max(Counter(file.relpath for file in files).values()) == 1
    assert all(file.is_verified for file in files if file.kind is FileKind.FILE)
    found = {}
    for file in files:
        path = file.relpath.removeprefix(b"data/")
        if file.kind is FileKind.LINK:
            target = urlsafe_b64decode((file.link_target_b64 or "") + "==")
            found[path] = (len(target), blake3(target).hexdigest())
        else:
            found[path] = (file.size, file.checksums[0].value)
    return found


def table(told: str) -> Mapping[str, str]:
    """How many files each line of the table counts."""
    lines = (line.split() for line in told.splitlines())
    return {words[0]: words[1] for words in lines if words and words[0] in STEPS}


STEPS = ("written", "stored", "verified", "catalogued")


@pytest.fixture
def demo(clean_environment: Path) -> Iterator[Demo]:
    made = Demo(clean_environment)
    yield made
    made.kill()


def test_the_demo_delivers_everything_also_what_is_hostile_and_stops_when_told(demo: Demo) -> None:
    done = demo.run("--torture", "--frames", "30", "--rate", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    expected = demo.truth
    assert len(expected) > 70
    assert table(done.stdout) == dict.fromkeys(STEPS, str(len(expected)))
    assert "Every file is stored, verified and catalogued as it was written." in done.stdout
    assert "data/nexus/scan_003.nxs  12 keV" in done.stdout
    assert re.search(r"1 frames became curves; the first ring is at 58\.[0-9]+ A", done.stdout)
    chain = r"analysis/curves/scan_001\.txt version 1\n    └─ data/scan_001/frame_0001\.tif.*\(2-keep\)"
    assert re.search(chain, done.stdout)
    # The pipe among the hostile files is nothing that could be stored, so it is named in both answers.
    assert f"All {len(expected) + 1} files are stored and verified" in done.stdout
    assert f"NO: special (1 file), too-young ({len(expected)} files). Files have to be older than 24 h." in done.stdout
    assert "With --min-age 0, for files of any age: NO: special (1 file)." in done.stdout
    assert catalogued(demo) == expected
    assert _disk_bytes(demo.directory) < 200_000_000  # of the sparse file only what is no hole
    assert demo.run("--stop").returncode == 0
    assert demo.kill() == 0


@pytest.mark.long
def test_the_demo_passes_on_postgresql(
    demo: Demo, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [fresh_database(postgres_server) for _ in Service]
    monkeypatch.setenv("PGPASSWORD", postgres_server.password)
    words = [f"--database={url.replace(f':{postgres_server.password}@', '@')}" for url in urls]
    done = demo.run("--frames", "30", "--rate", "200", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert table(done.stdout) == dict.fromkeys(STEPS, str(len(demo.truth)))
    assert catalogued(demo) == demo.truth
    assert f"for files of any age: YES, all {len(demo.truth)} files are proven." in done.stdout
    demo.kill()
    for url in urls:
        drop_database(postgres_server, url)


@pytest.mark.long
def test_a_demo_killed_in_the_middle_ends_as_one_that_was_not(demo: Demo) -> None:
    words = ("--torture", "--frames", "60", "--rate", "150")
    with demo.start(*words) as process:
        until(lambda: _has_some_stored(demo), "the first files")
        assert demo.kill() >= 4  # the demo, its detector, the supervisor, the services
        process.communicate()
    assert b"nexus/scan_005.nxs" not in demo.truth
    done = demo.run("--json")
    assert done.returncode == 0, done.stdout + done.stderr
    expected = demo.truth
    counts = {row["what"]: (row["files"], row["bytes"]) for row in json.loads(done.stdout)["verdict"]["rows"]}
    assert counts == dict.fromkeys(STEPS, (len(expected), sum(size for size, _ in expected.values())))
    assert contents(demo.source) == expected
    assert contents(demo.stored) == expected
    assert catalogued(demo) == expected
    assert {f"scan_{n // 50 + 1:03}/frame_{n % 50 + 1:04}.tif".encode() for n in range(60)} <= expected.keys()


def test_a_wrong_byte_in_storage_is_told_by_the_name_of_the_file_and_the_exit_status(demo: Demo) -> None:
    with demo.start("--frames", "5", "--rate", "400") as process:
        until(lambda: _has_some_stored(demo), "the first file")
        victim = demo.stored / "scan_001" / "frame_0002.tif"
        until(victim.exists, "the victim")
        victim.chmod(0o600)
        with victim.open("r+b") as file:
            file.seek(5000)
            byte = file.read(1)
            file.seek(5000)
            file.write(bytes([byte[0] ^ 1]))
        out, err = process.communicate(timeout=100)
    assert process.returncode == EXIT_WANTING, out + err
    assert "1 mismatches:" in out
    assert "scan_001/frame_0002.tif: the storage area has" in out
    assert "may be wiped is not asked, since not every file matches" in out


def _has_some_stored(demo: Demo) -> bool:
    return any(demo.directory.glob("beamline/storage/*/*/data/scan_001/*.tif"))


def _disk_bytes(top: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in top.rglob("*"))


def test_stopping_a_demo_that_never_was_says_so(demo: Demo) -> None:
    done = demo.run("--stop")
    assert done.returncode != 0
    assert f"there is no demo in {demo.directory}" in done.stderr
