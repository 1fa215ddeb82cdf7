"""The scripts that the founding paper's Fig. 3 calls, as stand-ins under its own paths, and the host `txmtwo`.

`python -m beamkeeper.testing.figure_3 PLACE FRAME` runs where `/home` is a directory of ours, and says as JSON how the
workflow went: as a job, by the engine with its spawner and runners, and tried out by `dm workflow test`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beamkeeper.cli.trial_runs import try_out
from beamkeeper.domain.workflows import FileFormat, InputFile, parse_definition
from beamkeeper.testing.jobs import shop
from beamkeeper.testing.remotes import sshd
from beamkeeper.testing.workflows import FIGURE_3

HOME = Path("/home/dm")
STAND_INS = {
    "workflows/tomo-01/start-tomo-01.sh": """#!/bin/sh
mkdir -p "$2/$(basename "$1" .h5)"
echo "Created processing output dir: $2/$(basename "$1" .h5)"
echo "File number: 0042"
""",
    "workflows/tomo-01/tomo-01.py": """#!/usr/bin/env python3
import os, sys
frame, directory = sys.argv[1:]
with open(os.path.join(directory, "rec.txt"), "w") as made:
    made.write(f"{os.path.getsize(frame)} bytes, by ssh from {os.environ['SSH_CONNECTION'].split()[0]}")
""",
    "etc/dm.setup.sh": "export PATH=/home/dm/bin:$PATH\necho set up\n",
    "bin/dm-32id-upload": '#!/bin/sh\nprintf "%s\\n" "$@" > /home/dm/uploaded\n',
}


@contextmanager
def txmtwo(place: Path) -> Iterator[Path]:
    """Let `ssh txmtwo` reach a real sshd on this machine; gives the directory with that `ssh`, for PATH."""
    with sshd() as server:
        (place / "ssh_config").write_text(
            f"Host txmtwo\n  HostName 127.0.0.1\n  Port {server.port}\n  IdentityFile {server.key}\n"
            f"  UserKnownHostsFile {server.known_hosts}\n  BatchMode yes\n"
        )
        wrapper = place / "bin" / "ssh"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {place / "ssh_config"} "$@"\n')
        wrapper.chmod(0o755)
        yield wrapper.parent


def main(place: Path, frame: Path) -> None:
    """Run the workflow on a frame, and print how it went and what its scripts left."""
    for name, text in STAND_INS.items():
        (HOME / name).parent.mkdir(parents=True, exist_ok=True)
        (HOME / name).write_text(text)
        (HOME / name).chmod(0o755)
    with txmtwo(place) as programs:
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        values = {"outputRootDir": str(place / "out"), "experimentName": "coffee"}
        told = {"job": _by_engine(place, frame, values), "trial": _tried_out(place, frame, values)}
    sys.stdout.write(json.dumps(told))


def _by_engine(place: Path, frame: Path, values: Mapping[str, str]) -> dict[str, Any]:
    document = parse_definition(FIGURE_3, FileFormat.PYTHON).model_dump(mode="json")
    with shop(f"sqlite:///{place / 'processing.db'}", place / "work") as made:
        uid = made.submit({}, [frame], arguments=values, definition=document)[0]
        job = made.ended([uid])[0]
    exits = [child.exit_status for child in job.child_processes]
    return {"failure": job.message, "variables": dict(job.variables), "exits": exits, **_left(place)}


def _tried_out(place: Path, frame: Path, values: Mapping[str, str]) -> dict[str, Any]:
    definition = parse_definition(FIGURE_3, FileFormat.PYTHON)
    trial = try_out(definition, values, InputFile(str(frame), f"data/{frame.name}"), timeout_s=60)
    return {"failure": trial.failure, "variables": trial.variables, **_left(place)}


def _left(place: Path) -> dict[str, Any]:
    """Take away what the scripts have left, and return it."""
    reconstructed = [path.read_text() for path in place.glob("out/*/rec.txt")]
    shutil.rmtree(place / "out", ignore_errors=True)
    uploaded = (HOME / "uploaded").read_text().splitlines() if (HOME / "uploaded").exists() else []
    (HOME / "uploaded").unlink(missing_ok=True)
    return {"reconstructed": reconstructed, "uploaded": uploaded}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
