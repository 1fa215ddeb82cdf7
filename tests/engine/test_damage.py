"""What nodes are sent and what comes back from them counts when it was read again, and not before."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from beamkeeper.engine.jobs import far
from beamkeeper.engine.jobs.carrying import TRIES, Carrier, LostError, Staging
from beamkeeper.testing.jobs import PATIENCE_S
from beamkeeper.testing.station import until


def _row(file: Path, name: str, path: str) -> tuple[str, str, int, str]:
    return (name, path, *far.digest_of(str(file)))


def test_what_arrives_damaged_is_refused_and_does_not_stay_to_pass_for_what_was_sent(tmp_path: Path) -> None:
    sent = tmp_path / "0"
    sent.write_text("one")
    staged: dict[str, Any] = {"root": str(tmp_path), "inputs": [_row(sent, "0", "in/a.dat")], "directories": []}
    sent.write_text("onE")
    with pytest.raises(far.DamagedError, match=r"in/a\.dat is not what was sent"):
        far.arrange({"staged": staged, "directory": str(tmp_path)})
    assert not sent.exists()
    with pytest.raises(far.DamagedError, match=r"in/a\.dat has not arrived"):
        far.arrange({"staged": staged, "directory": str(tmp_path)})
    sent.write_text("one")
    far.arrange({"staged": staged, "directory": str(tmp_path)})
    assert (tmp_path / "in/a.dat").read_text() == "one"


@pytest.mark.parametrize("is_mended", [True, False])
def test_what_comes_back_damaged_is_fetched_again_and_gets_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_mended: bool
) -> None:
    monkeypatch.setattr("beamkeeper.engine.jobs.carrying.PAUSE_S", 0.01)
    attempt, said = str(uuid4()), list[str]()
    kept, directory = tmp_path / "there" / attempt / far.BACK / "0", tmp_path / "job" / "1"
    for each in (kept.parent, directory):
        each.mkdir(parents=True)
    kept.write_text("one")
    (directory / far.LEFT).write_text(json.dumps([[*_row(kept, "0", "made.txt"), 0o640]]))
    kept.write_text("onE")
    staging = Staging(f"file://{tmp_path}/there", f"{tmp_path}/there", "copy")
    order = {"attempt": attempt, "directory": str(directory)}
    made = tmp_path / "job/files/made.txt"
    with closing(Carrier(staging, tmp_path / "executor", lambda _: None, said.append)) as carrier:
        assert until(lambda: carrier.is_back(order) or said, "a word of it", PATIENCE_S)
        assert '"made.txt" did not come back whole' in said[0]
        assert not made.exists()
        if is_mended:
            kept.write_text("one")
            until(lambda: carrier.is_back(order), "what was made", PATIENCE_S)
            assert made.read_text() == "one"
        else:
            with pytest.raises(LostError, match=r"made\.txt"):
                until(lambda: carrier.is_back(order), "the end of its tries", PATIENCE_S)
            assert (len(said), made.exists()) == (TRIES - 1, False)
