"""Figure 3 of the founding paper runs as it is printed: under its own paths, and with a real ssh to this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can put its scripts under /home/dm, where it names them"
)
BIND = 'mount --make-rprivate / && mount --bind "$1" /home && shift && exec "$@"'
"""In a name space of mounts of its own, which ends with the process: the machine's own /home stays as it is."""


def run_figure_3(place: Path, frame: Path) -> Any:
    """Run it where /home is ours."""
    home = place / "home"
    home.mkdir()
    frame.write_bytes(b"frame")
    words = [sys.executable, "-m", "beamkeeper.testing.figure_3", str(place), str(frame)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", BIND, "sh", str(home), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_mounts
def test_it_runs_as_it_is_printed(tmp_path: Path) -> None:
    told = run_figure_3(tmp_path, tmp_path / "scan_7.h5")
    output = str(tmp_path / "out" / "scan_7")
    assert told["job"].pop("exits") == [0, 0, 0]
    for how, below in (("job", "scan_7.h5"), ("trial", "data/scan_7.h5")):
        went = told[how]
        assert went["failure"] == ""
        assert (went["variables"]["outputDir"], went["variables"]["fileNumber"]) == (output, "0042")
        assert went["reconstructed"] == ["5 bytes, by ssh from 127.0.0.1"]
        assert went["uploaded"] == [
            "--experiment=coffee",
            f"--data-directory={output}",
            "--dest-directory=processed/0042",
            f"parentFile:{below}",
        ]


@needs_mounts
def test_a_hostile_name_never_reaches_the_other_host(tmp_path: Path) -> None:
    told = run_figure_3(tmp_path, tmp_path / "a$(touch PWNED)b; touch PWNED #.h5")
    assert told["job"]["exits"] == [0]
    for went in told.values():
        assert 'stage "2-Process" was not begun: the value of filePath' in went["failure"]
        assert went["reconstructed"] == went["uploaded"] == []
    assert not list(tmp_path.rglob("PWNED"))
