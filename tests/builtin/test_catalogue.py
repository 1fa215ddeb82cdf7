"""Registering in batches: bounded, idempotent, and one refused file never holds up the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from beamkeeper.builtin.catalogue import CatalogueProcessor
from beamkeeper.domain.errors import InvalidError, UnavailableError
from beamkeeper.domain.files import NewFile, RegisteredFiles
from beamkeeper.plugins.api import PROCESSORS, FileProcessor
from beamkeeper.plugins.load import build
from beamkeeper.testing.stored import MemoryCatalogue, processor_context, stored_file


@pytest.fixture
def processor() -> FileProcessor:
    built = build(PROCESSORS, "catalogue", {})
    assert isinstance(built, CatalogueProcessor)
    return built


def test_files_are_registered_in_batches_that_are_accepted(processor: FileProcessor) -> None:
    catalogue = MemoryCatalogue()
    files = [stored_file(Path(f"/data/{number}")) for number in range(2001)]
    answers = processor.process(files, processor_context(catalogue))
    assert [answer.version_uid for answer in answers] == [file.new.version_uid for file in files]
    assert [answer.error for answer in answers] == [""] * 2001
    assert catalogue.calls == [1000, 1000, 1]


def test_registering_again_is_no_error(processor: FileProcessor) -> None:
    context = processor_context(MemoryCatalogue())
    files = [stored_file(Path("/data/frame"))]
    assert processor.process(files, context) == processor.process(files, context)


def test_a_conflict_fails_its_file_with_the_catalogues_reason(processor: FileProcessor) -> None:
    catalogue = MemoryCatalogue()
    catalogue.register([stored_file(Path("/other/b")).new])
    files = [stored_file(Path(f"/data/{name}")) for name in "abc"]
    answers = processor.process(files, processor_context(catalogue))
    assert [answer.error for answer in answers] == ["", "another source delivered this path first", ""]


class Picky(MemoryCatalogue):
    """Refuses the whole batch where one file's metadata are wrong, as a service does."""

    def register(self, files: Sequence[NewFile]) -> RegisteredFiles:
        if any("bad" in file.metadata for file in files):
            raise InvalidError("metadata may not be bad")
        return super().register(files)


def test_a_file_that_is_refused_does_not_hold_up_its_batch(processor: FileProcessor) -> None:
    catalogue = Picky()
    files = [stored_file(Path(f"/{number}"), metadata={"bad": 1} if number in {3, 40} else {}) for number in range(50)]
    answers = processor.process(files, processor_context(catalogue))
    assert {number: answer.error for number, answer in enumerate(answers) if answer.error} == {
        3: "metadata may not be bad",
        40: "metadata may not be bad",
    }
    assert len(catalogue.files) == 48


def test_a_catalogue_that_does_not_answer_fails_the_batch(processor: FileProcessor) -> None:
    class Away(MemoryCatalogue):
        def register(self, files: Sequence[NewFile]) -> RegisteredFiles:
            raise UnavailableError("the catalogue does not answer")

    with pytest.raises(UnavailableError, match="does not answer"):
        processor.process([stored_file(Path("/data/frame"))], processor_context(Away()))
