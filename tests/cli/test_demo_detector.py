"""The simulated detector: what it writes is what its truth file says, killed or not."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import pytest
import tifffile
from blake3 import blake3

from beamkeeper.cli.demo import hostile
from beamkeeper.cli.demo.check import Found, Type, scan
from beamkeeper.cli.demo.detector import TERMINATED
from beamkeeper.cli.demo.detector import main as detector
from beamkeeper.cli.demo.truth import Kind, Truth, Written, read_truth

START = "2026-03-01T08:00:00+00:00"
SPARSE_BYTES = 8 * 1024 * 1024 + 17


def arguments(directory: Path, *more: str, frames: int = 10, rate: float = 5000) -> list[str]:
    return [
        str(directory / "detector"),
        f"--truth={directory / 'truth.jsonl'}",
        f"--frames={frames}",
        f"--rate={rate}",
        f"--start={START}",
        f"--sparse-bytes={SPARSE_BYTES}",
        *more,
    ]


def started(words: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "beamkeeper.cli.demo.detector", *words])


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline, "nothing came of it in 30 s"
        time.sleep(0.005)


def open_files(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(os.readlink(link))
    return found


def last(directory: Path) -> dict[bytes, Written]:
    return {written.path: written for written in read_truth(directory / "truth.jsonl")}


def as_found(truth: dict[bytes, Written]) -> dict[bytes, Found]:
    types = {Kind.LINK: Type.LINK, Kind.SPECIAL: Type.SPECIAL}
    return {
        path: Found(types.get(written.kind, Type.FILE), written.size, written.blake3) for path, written in truth.items()
    }


def test_the_truth_agrees_with_the_bytes_on_disk_and_has_all_of_them(tmp_path: Path) -> None:
    assert detector(arguments(tmp_path, "--torture")) == 0
    truth = last(tmp_path)
    assert as_found(truth) == scan(os.fsencode(tmp_path / "detector"))
    counts = Counter(written.kind for written in truth.values())
    assert (counts[Kind.FRAME], counts[Kind.NEXUS], counts[Kind.LOG], counts[Kind.SPECIAL]) == (10, 5, 1, 1)
    assert {b"torture/" + name for name in hostile.NAMES} <= truth.keys()


def test_torture_has_the_names_links_and_files_that_break_things(tmp_path: Path) -> None:
    assert detector(arguments(tmp_path, "--torture")) == 0
    top = os.fsencode(tmp_path / "detector")
    names = b"\0".join(scan(top))
    for awkward in (b"\n", b"\xff", b"\x1b", b"\0torture/-", "\u202e".encode(), b"$(", b"'", b'"', b"x" * 251):
        assert awkward in names
    links = os.path.join(top, b"torture/links")
    assert os.path.isdir(os.path.join(links, b"outside"))
    assert not os.path.exists(os.path.join(links, b"dangling"))
    assert stat.S_ISFIFO(os.lstat(os.path.join(top, b"torture/pipe")).st_mode)
    sparse = os.lstat(os.path.join(top, b"torture/sparse.dat"))
    assert sparse.st_size == SPARSE_BYTES
    assert sparse.st_blocks * 512 < SPARSE_BYTES // 4


def test_without_torture_every_name_is_a_tame_one(tmp_path: Path) -> None:
    assert detector(arguments(tmp_path)) == 0
    names = set(last(tmp_path))
    assert b"scan_001/frame_0001.tif" in names
    assert b"notes of the day/sample notes.txt" in names
    assert b"processed/summary.dat" in names
    assert all(name.isascii() and name.decode().isprintable() for name in names)
    assert not any(name.endswith(b".tmp") for name in scan(os.fsencode(tmp_path / "detector")))


def test_frames_are_powder_rings_that_all_differ(tmp_path: Path) -> None:
    assert detector(arguments(tmp_path, frames=60)) == 0
    frames = [written for written in last(tmp_path).values() if written.kind is Kind.FRAME]
    assert len({written.blake3 for written in frames}) == 60
    assert {written.path.split(b"/")[0] for written in frames} == {b"scan_001", b"scan_002"}
    image = tifffile.imread(tmp_path / "detector/scan_001/frame_0001.tif")
    assert (image.shape, str(image.dtype)) == ((512, 512), "uint16")
    on_ring, off_ring = image[248, 260 - 101], image[248, 260 - 80]
    assert on_ring > 10 * max(off_ring, 1)


def test_nexus_files_have_what_a_catalogue_wants_and_one_was_written_by_swmr(tmp_path: Path) -> None:
    assert detector(arguments(tmp_path)) == 0
    for number, energy in enumerate((8.0, 10.0, 12.0, 15.0, 20.0), start=1):
        with h5py.File(tmp_path / f"detector/nexus/scan_{number:03d}.nxs") as file:
            entry = file["entry"]
            assert entry.attrs["NX_class"] == "NXentry"
            assert entry["data"].attrs["NX_class"] == "NXdata"
            assert entry["data/data"].shape == (20, 256, 256)
            assert entry["data/data"][19].any()
            assert entry["sample/name"][()] == b"silver behenate"
            assert entry["instrument/monochromator/energy"][()] == energy
            assert entry["instrument/monochromator/energy"].attrs["units"] == "keV"
            assert entry["start_time"][()].decode() < entry["end_time"][()].decode()
    superblocks = [(tmp_path / f"detector/nexus/scan_{n:03d}.nxs").read_bytes()[8] for n in range(1, 6)]
    assert superblocks == [0, 0, 3, 0, 0]


def test_a_nexus_file_is_held_open_while_frames_come(tmp_path: Path) -> None:
    process = started(arguments(tmp_path, rate=50))
    try:
        file = tmp_path / "detector/nexus/scan_001.nxs"
        wait_until(file.exists)
        wait_until(lambda: str(file) in open_files(process.pid))
        assert str(file) in open_files(process.pid)
        assert file.name.encode() not in b"".join(last(tmp_path))
    finally:
        process.terminate()
        assert process.wait(20) == TERMINATED


def test_the_log_has_a_line_of_truth_for_each_append(tmp_path: Path) -> None:
    assert detector(arguments(tmp_path)) == 0
    appends = [written for written in read_truth(tmp_path / "truth.jsonl") if written.kind is Kind.LOG]
    content = (tmp_path / "detector/detector.log").read_bytes()
    assert len(appends) == 20 == content.count(b"\n")
    assert [blake3(content[: written.size]).hexdigest() for written in appends] == [w.blake3 for w in appends]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_ended_goes_on_to_the_same_bytes(tmp_path: Path, number: signal.Signals) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for directory in (whole, broken):
        directory.mkdir()
    words = arguments(broken, "--torture", frames=40, rate=400)
    process = started(words)
    wait_until(lambda: len(last(broken)) > 20)
    process.send_signal(number)
    assert process.wait(20) == (TERMINATED if number is signal.SIGTERM else -signal.SIGKILL)
    before = last(broken)
    finished = {path: os.lstat(os.path.join(os.fsencode(broken / "detector"), path)).st_mtime_ns for path in before}

    assert detector([*words, "--rate=5000"]) == 0
    after = scan(os.fsencode(broken / "detector"))
    assert as_found(last(broken)) == after
    for path, mtime_ns in finished.items():
        if before[path].kind is not Kind.LOG:
            assert os.lstat(os.path.join(os.fsencode(broken / "detector"), path)).st_mtime_ns == mtime_ns
    assert detector(arguments(whole, "--torture", frames=40)) == 0
    undisturbed = scan(os.fsencode(whole / "detector"))
    outside = b"torture/links/outside"
    assert {**after, outside: undisturbed[outside]} == undisturbed


def test_a_line_of_truth_torn_by_a_crash_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    one, two = (Written(name, 1, "ab", 7, Kind.FILE) for name in (b"one", b"two"))
    file.write_bytes(one.to_line() + two.to_line()[:-9])
    assert list(read_truth(file)) == [one]
    truth = Truth(file)
    assert truth.last(b"two") is None
    truth.add(two)
    truth.close()
    assert list(read_truth(file)) == [one, two]


def test_a_file_cut_after_it_was_finished_is_written_again(tmp_path: Path) -> None:
    assert detector(arguments(tmp_path)) == 0
    frame = tmp_path / "detector/scan_001/frame_0003.tif"
    os.truncate(frame, 1000)
    assert detector(arguments(tmp_path)) == 0
    assert as_found(last(tmp_path)) == scan(os.fsencode(tmp_path / "detector"))


def test_real_files_are_copied_with_their_names_and_links(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "below").mkdir(parents=True)
    (mine / "below" / "a scan.h5").write_bytes(os.urandom(2_500_000))
    (mine / "link").symlink_to("below/a scan.h5")
    os.mkfifo(mine / "pipe")
    also = tmp_path / "also" / "mine"
    also.mkdir(parents=True)
    (also / "x").write_bytes(b"x")
    assert detector(arguments(tmp_path, f"--copy={mine}", f"--copy={also}")) == 0
    copied = {path: found for path, found in scan(os.fsencode(tmp_path / "detector")).items() if path[:5] == b"real/"}
    original = {path: found for path, found in scan(os.fsencode(mine)).items() if found.type is not Type.SPECIAL}
    expected = {b"real/mine/" + path: found for path, found in original.items()}
    assert copied == {**expected, b"real/mine-2/x": Found(Type.FILE, 1, blake3(b"x").hexdigest())}
    assert as_found(last(tmp_path)) == scan(os.fsencode(tmp_path / "detector"))


def test_a_source_that_cannot_be_read_is_named_in_one_sentence(tmp_path: Path) -> None:
    words = arguments(tmp_path, f"--copy={tmp_path / 'nowhere'}")
    done = subprocess.run(
        [sys.executable, "-m", "beamkeeper.cli.demo.detector", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
