"""Evidence that a file is finished, and how the policy weighs it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.domain.acquisition import Finished, Kind
from beamkeeper.engine.finish import (
    Format,
    Hints,
    Policy,
    Writer,
    format_of,
    make_policy,
    weigh,
    writer_of,
)

DAQ = Policy(Finished.EVIDENCE, 2.0, False, Kind.DAQ)
UPLOAD = Policy(Finished.EVIDENCE, 2.0, False, Kind.UPLOAD)
CLOSED = Policy(Finished.CLOSED, 2.0, False, Kind.DAQ)


def form(path: Path) -> Format:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return format_of(descriptor, os.fstat(descriptor).st_size)
    finally:
        os.close(descriptor)


def test_a_closed_hdf5_file_of_the_latest_format_gives_its_writers_word(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file["frames"] = np.zeros((4, 8))
    assert form(tmp_path / "x.h5") is Format.WHOLE


@pytest.mark.parametrize("swmr", [False, True])
def test_an_hdf5_file_that_is_open_for_writing_says_so(tmp_path: Path, swmr: bool) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        file.create_dataset("frames", (0, 8), maxshape=(None, 8), dtype="u2")
        if swmr:
            file.swmr_mode = True
        file.flush()
        assert form(tmp_path / "x.h5") is Format.OPEN


def test_an_hdf5_file_of_the_earliest_format_is_never_its_writers_word(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        file["frames"] = np.zeros((4, 8))
    assert form(path) is Format.PLAUSIBLE
    with path.open("ab") as file:
        file.write(b"what a killed writer left")
    assert form(path) is Format.SHORT


def test_a_tiff_that_is_cut_short_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint16))
    assert form(path) is Format.PLAUSIBLE
    os.truncate(path, path.stat().st_size // 2)
    assert form(path) is Format.SHORT


@given(st.binary(max_size=200))
def test_no_bytes_make_the_probe_fail(content: bytes) -> None:
    for head in (b"", b"\x89HDF\r\n\x1a\n", b"II*\0", b"MM\0*"):
        reading, writing = os.pipe()
        os.close(writing)
        os.close(reading)
        descriptor = os.memfd_create("probe")
        try:
            os.write(descriptor, head + content)
            assert format_of(descriptor, len(head + content)) in Format
        finally:
            os.close(descriptor)


def test_a_writer_in_another_process_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("one line\n")
    descriptor = os.open(path, os.O_RDONLY)
    child = "import sys; file = open(sys.argv[1], 'a'); print('open', flush=True); sys.stdin.read()"
    try:
        assert writer_of(descriptor) is Writer.NONE
        with subprocess.Popen(
            [sys.executable, "-c", child, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdin is not None
            assert writer.stdout.readline() == "open\n"
            assert writer_of(descriptor) is Writer.OPEN
            writer.stdin.close()
        assert writer_of(descriptor) is Writer.NONE
        assert fcntl.fcntl(descriptor, fcntl.F_GETLEASE) == fcntl.F_UNLCK
    finally:
        os.close(descriptor)


def test_a_file_of_another_owner_answers_unknown_to_an_ordinary_user() -> None:
    """The kernel gives leases to a file's owner only: nothing is known, and that is not 'no writer'."""
    code = (
        "import os; from beamkeeper.engine.finish import writer_of; os.geteuid() or os.setuid(65534); "
        "descriptor = os.open('/etc/passwd', os.O_RDONLY); print(os.fstat(descriptor).st_uid, writer_of(descriptor))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["0", "unknown"]


def test_silence_alone_counts_only_after_the_quiet_period() -> None:
    early = weigh(DAQ, Hints(), quiet_for_s=1.5, writer=Writer.NONE, form=Format.PLAUSIBLE)
    assert not early.is_finished
    assert early.look_again_s == pytest.approx(0.5)
    assert weigh(DAQ, Hints(), quiet_for_s=2.0, writer=Writer.NONE, form=Format.PLAUSIBLE).is_finished


def test_a_known_writer_outweighs_everything() -> None:
    for policy in (DAQ, UPLOAD, CLOSED):
        for hints in (Hints(is_renamed_in=True), Hints(is_closed=True)):
            verdict = weigh(policy, hints, quiet_for_s=99, writer=Writer.OPEN, form=Format.WHOLE)
            assert not verdict.is_finished
            assert verdict.is_growing


def test_a_rename_from_a_temporary_name_counts_at_once() -> None:
    assert weigh(DAQ, Hints(is_renamed_in=True), quiet_for_s=0, writer=Writer.UNKNOWN, form=Format.SHORT).is_finished


def test_closing_counts_only_where_it_was_asked_for() -> None:
    evidence = {"quiet_for_s": 0.0, "writer": Writer.NONE, "form": Format.PLAUSIBLE}
    assert weigh(CLOSED, Hints(is_closed=True), **evidence).is_finished  # type: ignore[arg-type]
    assert not weigh(DAQ, Hints(is_closed=True), **evidence).is_finished  # type: ignore[arg-type]


def test_an_upload_does_not_wait_where_no_writer_is_certain() -> None:
    assert weigh(UPLOAD, Hints(), quiet_for_s=0, writer=Writer.NONE, form=Format.PLAUSIBLE).is_finished
    assert not weigh(UPLOAD, Hints(), quiet_for_s=0, writer=Writer.UNKNOWN, form=Format.PLAUSIBLE).is_finished


def test_a_file_that_its_writer_never_finished_is_taken_in_the_end() -> None:
    for form_ in (Format.OPEN, Format.SHORT):
        assert not weigh(DAQ, Hints(), quiet_for_s=5, writer=Writer.NONE, form=form_).is_finished
        assert weigh(DAQ, Hints(), quiet_for_s=10.1, writer=Writer.NONE, form=form_).is_finished
    assert not weigh(DAQ, Hints(), quiet_for_s=999, writer=Writer.UNKNOWN, form=Format.OPEN).is_finished


def test_the_writers_own_word_counts_at_once_unless_it_is_known_to_write_on() -> None:
    announced = Hints(is_announced=True)
    assert weigh(DAQ, announced, quiet_for_s=0, writer=Writer.UNKNOWN, form=Format.SHORT).is_finished
    assert not weigh(DAQ, announced, quiet_for_s=0, writer=Writer.OPEN, form=Format.WHOLE).is_finished


def test_exported_directories_get_a_longer_quiet_period_and_say_so() -> None:
    policy = make_policy(Finished.EVIDENCE, None, 2.0, file_system="ext4", kind=Kind.DAQ, is_exported=True)
    assert (policy.quiet_s, policy.is_remote, policy.is_watched) == (10.0, True, True)
    assert "exported over NFS" in policy.sentence
    assert make_policy(Finished.EVIDENCE, 1.0, 2.0, file_system="ext4", kind=Kind.DAQ, is_exported=True).quiet_s == 1.0


def test_a_policy_that_waits_for_closing_says_where_closing_cannot_be_seen() -> None:
    local = make_policy(Finished.CLOSED, None, 2.0, file_system="ext4", kind=Kind.DAQ)
    remote = make_policy(Finished.CLOSED, None, 2.0, file_system="nfs4", kind=Kind.DAQ)
    polled = make_policy(Finished.CLOSED, None, 2.0, file_system="ext4", kind=Kind.DAQ, is_polled=True)
    assert "when its writer closes it" in local.sentence
    for policy in (remote, polled):
        assert "cannot be seen here" in policy.sentence


def test_network_file_systems_get_a_longer_quiet_period() -> None:
    assert make_policy(Finished.EVIDENCE, None, 2.0, file_system="nfs4", kind=Kind.DAQ).quiet_s == 10.0
    assert make_policy(Finished.EVIDENCE, None, 2.0, file_system="ext4", kind=Kind.DAQ).quiet_s == 2.0
    assert make_policy(Finished.EVIDENCE, 1.0, 2.0, file_system="nfs4", kind=Kind.DAQ).quiet_s == 1.0
