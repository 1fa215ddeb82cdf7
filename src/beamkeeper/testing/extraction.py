"""What every Extractor must do, as tests that the author of a plugin runs on it.

Derive a test class from `ExtractorConformance`, say the name of the entry point, and give whole files of its formats,
each with metadata that must be found in it:

    class TestMine(ExtractorConformance):
        name = "mine"

        @pytest.fixture(scope="class")
        @classmethod
        def samples(cls, tmp_path_factory) -> Sequence[Sample]:
            path = tmp_path_factory.mktemp("mine") / "frame.mine"
            path.write_bytes(b"...")
            return [Sample(path, {"format": "Mine", "energy": {"value": 12.4, "unit": "keV"}})]
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import JsonValue

from beamkeeper.builtin.worker import ExtractionWorker
from beamkeeper.domain.metadata import check_metadata
from beamkeeper.plugins.extractors import ExtractionError, Recognised, recognise, shipped

MAX_BYTES = 64 * 1024
TIMEOUT_S = 30.0
ODD_NAME = b" -rf $(id) \xff\n caf\xc3\xa9 "
DAMAGED = 12
"""So many damaged copies are tried of each sample."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A whole file, and what must be found in it, among other things."""

    path: Path
    expected: Mapping[str, object]


class ExtractorConformance:
    """The contract of `Extractor`, each sentence of it as a test; files are read by the same process as live."""

    name: ClassVar[str]
    """Of the entry point."""

    @pytest.fixture(scope="class")
    @classmethod
    def samples(cls, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Sample]:
        """Return whole files of the extractor's formats."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def worker(cls) -> Iterator[ExtractionWorker]:
        """Return the process that reads."""
        worker = ExtractionWorker(timeout_s=TIMEOUT_S, idle_s=60, max_answer_bytes=MAX_BYTES)
        yield worker
        worker.close()

    def known(self, path: Path) -> Recognised:
        """Return how a file is recognised among all extractors that are installed: it must be as ours."""
        found = recognise(os.fsencode(path), shipped())
        assert found is not None, f"{path} is recognised by no extractor"
        assert found.extractor == self.name, f"{path} is taken for {found.format} of {found.extractor}"
        return found

    def read(self, worker: ExtractionWorker, path: Path, known: Recognised | None = None) -> dict[str, JsonValue] | str:
        """Return the metadata of a file, which must be of the kind that is kept; or the reason why there are none."""
        before = sorted(os.listdir(os.fsencode(path.parent)))
        found: dict[str, JsonValue] | str
        try:
            found = worker.extract(known or self.known(path), os.fsencode(path))
        except ExtractionError as error:
            found = str(error)
        if isinstance(found, str):
            assert found, "there is no reason"
            assert "process ended" not in found, f"{path} ended the process"
            assert "took longer" not in found, f"{path} hung"
        else:
            check_metadata(found)
            json.dumps(found, allow_nan=False)
        assert sorted(os.listdir(os.fsencode(path.parent))) == before, "it wrote beside the file"
        return found

    def test_whole_files_say_what_is_in_them(self, samples: Sequence[Sample], worker: ExtractionWorker) -> None:
        """What is expected is found, units and all."""
        assert samples, "there is no sample"
        for sample in samples:
            found = self.read(worker, sample.path)
            assert isinstance(found, dict), found
            assert {key: found.get(key) for key in sample.expected} == dict(sample.expected), found
            assert found["format"], "a file says its format"

    def test_numbers_with_units_have_one_form(self, samples: Sequence[Sample], worker: ExtractionWorker) -> None:
        """`{"value": number, "unit": text}`, with no other keys; a unit that is not known is null."""
        for sample in samples:
            for quantity in _quantities(self.read(worker, sample.path)):
                assert set(quantity) == {"value", "unit"}
                assert isinstance(quantity["value"], int | float)
                assert quantity["unit"] is None or (isinstance(quantity["unit"], str) and quantity["unit"])

    def test_the_same_file_says_the_same(self, samples: Sequence[Sample], worker: ExtractionWorker) -> None:
        """Order included; in another process too, and whatever its name."""
        again = ExtractionWorker(timeout_s=TIMEOUT_S, idle_s=60, max_answer_bytes=MAX_BYTES)
        try:
            for sample in samples:
                first = json.dumps(self.read(worker, sample.path))
                assert json.dumps(self.read(worker, sample.path)) == first
                assert json.dumps(self.read(again, sample.path)) == first
        finally:
            again.close()

    def test_names_that_are_not_text_are_read(
        self, samples: Sequence[Sample], worker: ExtractionWorker, tmp_path: Path
    ) -> None:
        """A name is bytes, and never becomes an option, a command or a pattern."""
        for sample in samples:
            odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + ODD_NAME + os.fsencode(sample.path.suffix)))
            shutil.copyfile(sample.path, odd)
            assert isinstance(self.read(worker, odd), dict)

    def test_an_empty_file_gives_the_reason(
        self, samples: Sequence[Sample], worker: ExtractionWorker, tmp_path: Path
    ) -> None:
        """It is no file of the format, whatever its name."""
        for sample in samples:
            empty = tmp_path / sample.path.name
            empty.touch()
            assert self.read(worker, empty, self.known(sample.path)) == "the file is empty"

    def test_a_file_that_is_cut_costs_its_own_metadata_at_most(
        self, samples: Sequence[Sample], worker: ExtractionWorker, tmp_path: Path
    ) -> None:
        """At any place."""
        for sample in samples:
            known, content = self.known(sample.path), sample.path.read_bytes()
            for part in (1, 7, 100, len(content) // 3, len(content) // 2, len(content) * 9 // 10, len(content) - 1):
                cut = tmp_path / sample.path.name
                cut.write_bytes(content[: max(1, part)])
                self.read(worker, cut, known)

    def test_damaged_files_cost_their_own_metadata_at_most(
        self, samples: Sequence[Sample], worker: ExtractionWorker, tmp_path: Path
    ) -> None:
        """Bytes that flipped, parts that are zero, all ones or of another place, and nonsense under the right name."""
        chance = random.Random(20)
        for sample in samples:
            known, content = self.known(sample.path), sample.path.read_bytes()
            broken = tmp_path / sample.path.name
            for damaged in (*_damaged(content, chance), chance.randbytes(10_000), b"\0" * 10_000, b"{" * 10_000):
                broken.write_bytes(damaged)
                self.read(worker, broken, known)
            assert isinstance(self.read(worker, sample.path), dict), "what came before does it no harm"

    def test_a_huge_header_costs_no_more_than_it_may(
        self, samples: Sequence[Sample], worker: ExtractionWorker, tmp_path: Path
    ) -> None:
        """Metadata that are too many are left out or refused, in time and within the memory."""
        for sample in samples:
            known, content = self.known(sample.path), sample.path.read_bytes()
            huge = tmp_path / sample.path.name
            for filling in (b"key: value\n" * 300_000, b"x" * 4_000_000, b"# a = 1\n#S 1 ascan\n" * 150_000):
                huge.write_bytes(content[:64] + filling + content[64:])
                self.read(worker, huge, known)

    def test_nothing_is_kept_open(self, samples: Sequence[Sample], worker: ExtractionWorker) -> None:
        """Whatever became of a file, its reader closes it."""
        for sample in samples:
            self.read(worker, sample.path)
        count = _open_files(worker)
        for sample in samples:
            for _ in range(3):
                self.read(worker, sample.path)
        assert _open_files(worker) <= count


def _damaged(content: bytes, chance: random.Random) -> Iterator[bytes]:
    for number in range(DAMAGED):
        damaged = bytearray(content)
        at = chance.randrange(len(content)) if number % 2 else chance.randrange(min(len(content), 512))
        length = chance.choice((1, 4, 16, 64))
        kinds = (b"\0" * length, b"\xff" * length, b"\x7f\xff\xff\xff" * length, chance.randbytes(length))
        filling = kinds[number % len(kinds)]
        damaged[at : at + len(filling)] = filling
        yield bytes(damaged)


def _quantities(found: Any) -> Iterator[Mapping[str, object]]:
    """Yield every object in metadata that has a value or a unit."""
    if isinstance(found, dict):
        if "value" in found:
            yield found
        for inner in found.values():
            yield from _quantities(inner)
    elif isinstance(found, list):
        for inner in found:
            yield from _quantities(inner)


def _open_files(worker: ExtractionWorker) -> int:
    return len(os.listdir(f"/proc/{worker.pid}/fd"))
