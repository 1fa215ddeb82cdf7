"""Sending: every result arrives, and a transfer that hangs holds up neither its worker for ever nor other areas."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from beamkeeper.builtin.copying import CopyOptions, CopyTransfer
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import DestinationError, NotFoundError, SourceError
from beamkeeper.domain.storage import StorageArea
from beamkeeper.engine.sending import Sender
from beamkeeper.plugins.api import Stop, Transfer, TransferItem, TransferResult
from beamkeeper.testing.conformance import LocalPlace, Sources
from beamkeeper.testing.station import until
from beamkeeper.testing.transfers import FaultyOptions, HangingTransfer

STALL_S = 0.3


class SlowTransfer:
    """Takes long, and shows that it lives."""

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        for _ in range(8):
            time.sleep(STALL_S / 3)
            stop()
        yield from CopyTransfer(CopyOptions()).send(items, staging, stop)

    def discard(self, staging: str) -> None:
        CopyTransfer(CopyOptions()).discard(staging)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def sender(gate: Path) -> Sender:
    made: dict[str, Transfer] = {
        "copy": CopyTransfer(CopyOptions()),
        "slow": SlowTransfer(),
        "hanging": HangingTransfer(FaultyOptions(gate=gate)),
    }

    def transfer(name: str) -> Transfer:
        if name not in made:
            raise NotFoundError(f'there is no plugin "{name}"')
        return made[name]

    return Sender(transfer, stall_s=STALL_S)


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    return LocalPlace(tmp_path / "experiment")


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path / "source")


def area(transfer: str = "copy") -> StorageArea:
    return StorageArea(
        uid=new_uid(),
        name=transfer,
        station_url="file:///x",
        path="/x",
        transfer=transfer,
        created_at=datetime.now(UTC),
    )


def running() -> bool:
    return False


def test_every_file_has_its_result(sender: Sender, place: LocalPlace, sources: Sources) -> None:
    good, gone = sources.add(b"good", b"1"), sources.add(b"gone", b"2")
    Path(gone.source.decode()).unlink()
    results = sender.send(area(), [good, gone], place.url("b1"), running)
    assert results[good.version_uid].error is None
    assert isinstance(results[gone.version_uid].error, SourceError)


def test_what_a_transfer_raises_is_raised_to_its_worker(sender: Sender, tmp_path: Path, sources: Sources) -> None:
    with pytest.raises(DestinationError, match="see that the storage is mounted"):
        sender.send(area(), [sources.add(b"a")], f"file://{tmp_path}/no/where/at/all/b1", running)
    with pytest.raises(DestinationError, match="no plugin"):
        sender.send(area("unknown"), [sources.add(b"a")], "file:///x/b1", running)


def test_a_transfer_that_hangs_is_left_behind_and_throws_away_what_it_makes_later(
    sender: Sender, place: LocalPlace, sources: Sources, gate: Path
) -> None:
    gate.touch()
    hung, other, item = area("hanging"), area(), sources.add(b"a", b"1")
    with pytest.raises(DestinationError, match="has not answered") as caught:
        sender.send(hung, [item], place.url("b1"), running)
    assert caught.value.details["code"] == "hanging"
    assert sender.silent() == {hung.uid}
    assert sender.send(other, [item], place.url("b2"), running)[item.version_uid].error is None
    gate.unlink()
    until(lambda: not sender.silent(), "the end of the transfer")
    assert place.read("b1", item.path) is None
    assert place.read("b2", item.path) == b"1"


def test_a_transfer_that_takes_long_and_shows_that_it_lives_is_waited_for(
    sender: Sender, place: LocalPlace, sources: Sources
) -> None:
    item = sources.add(b"a", b"1")
    assert sender.send(area("slow"), [item], place.url("b1"), running)[item.version_uid].error is None


def test_who_must_wait_to_keep_to_a_limit_does_not_count_as_hanging(place: LocalPlace, sources: Sources) -> None:
    held: list[int] = []

    def hold(moved: int, is_over: Callable[[], bool], device: int) -> None:
        held.append(moved)
        time.sleep(2 * STALL_S)

    sender = Sender(lambda _: CopyTransfer(CopyOptions(buffer_bytes=4096)), stall_s=STALL_S, hold=hold)
    item = sources.add(b"a", b"1" * 6000)
    assert sender.send(area(), [item], place.url("b1"), running)[item.version_uid].error is None
    assert held == [4096, 1904]


def test_a_stop_is_passed_on(sender: Sender, place: LocalPlace, sources: Sources) -> None:
    items = [sources.add(b"%d" % number, b"1") for number in range(20)]
    assert sender.send(area(), items, place.url("b1"), lambda: True) == {}
