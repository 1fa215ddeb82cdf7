"""What nobody watched is found out at the next start: files that were undecided, and directories that went."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

from beamkeeper.domain.acquisition import JournalState, NewDaq, State
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.names import path_fields
from beamkeeper.testing.station import experiment, station, until

J = JournalState

STAY = ("plain/a.dat", "plain/.dm/staging/b.dat", ".dm/c.dat", "lost+found/d.dat", ".snapshot/e.dat")
GO = ("removed/f.dat", "removed/deeper/g.dat")


def test_every_file_that_was_undecided_when_all_was_killed_is_delivered_or_listed(tmp_path: Path) -> None:
    source = tmp_path / "detector"
    with station(tmp_path) as made:
        client = made.start()
        of = experiment(client)
        with ExitStack() as opened:
            for name in (*STAY, *GO):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                opened.enter_context((source / name).open("wb")).write(name.encode())
            new = NewDaq.model_validate({"experiment_uid": of.uid, **path_fields(os.fsencode(source)[1:])})
            uid = client.daqs.start(new).uid
            until(lambda: client.daqs.get(uid).count(J.GROWING) == len(STAY) + len(GO), "all of them seen, none whole")
            made.kill(signal.SIGKILL)
        shutil.rmtree(source / "removed")
        client = made.start()
        client.daqs.stop(uid)
        ended = client.daqs.wait(uid, timeout_s=60)
        assert (ended.state, ended.count(J.AVAILABLE)) == (State.DONE, len(STAY)), ended
        assert sorted(entry.path or "" for entry in client.daqs.entries(uid, J.VANISHED)) == sorted(GO)
        files = {file.path: file.size for file in client.files.find(FileQuery(experiment_uid=of.uid))}
        assert files == {f"data/{name}": len(name) for name in STAY}
