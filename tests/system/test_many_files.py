"""Uploads of many small files, whose bytes helper processes move: any process may be killed at any moment."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

from beamkeeper.domain.acquisition import JournalState, NewUpload, State
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.testing.station import experiment, station, until

FILES = 1200
NAME = b"beamkeeper.plugins.helpers"


def helpers(pid: int) -> list[int]:
    """The helpers of the services: those of their children that are run for it."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            children = (task / "children").read_text().split()
            found += [int(child) for child in children if NAME in Path(f"/proc/{child}/cmdline").read_bytes()]
    return found


def test_an_upload_survives_that_its_helpers_and_then_the_services_are_killed(tmp_path: Path) -> None:
    source = tmp_path / "detector"
    wanted = {f"data/{number % 7}/{number:04d}.dat": os.urandom(5000) for number in range(FILES)}
    for name, content in wanted.items():
        path = source / Path(name).relative_to("data")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with station(tmp_path, settings="batch_files = 300\n") as made:
        client = made.start()
        of = experiment(client)
        upload = client.uploads.start(
            NewUpload.model_validate({"experiment_uid": of.uid, **path_fields(os.fsencode(source)[1:])})
        )
        for pid in until(lambda: helpers(made.pid), "a helper"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left = [os.pidfd_open(pid) for pid in until(lambda: helpers(made.pid), "a helper")]
        os.kill(made.pid, signal.SIGKILL)  # the services alone: what they started has to end by itself
        for ended in left:
            assert select.select([ended], [], [], 30)[0]
            os.close(ended)
        made.kill()
        client = made.start()
        done = client.uploads.wait(upload.uid, timeout_s=100)
        assert (done.state, done.count(JournalState.AVAILABLE)) == (State.DONE, FILES)
        files = list(client.files.find(FileQuery(experiment_uid=of.uid, limit=1000)))
        assert {file.path: file.version for file in files} == dict.fromkeys(wanted, 1)
        root = made.storage / of.directory
        assert {name: (root / name).read_bytes() for name in wanted} == wanted
        assert not list((root / ".dm" / "staging").iterdir())
