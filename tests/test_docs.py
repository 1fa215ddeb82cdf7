"""The documentation: its examples work, and its generated pages are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from uuid import UUID

import pytest

from beamkeeper.config import load
from beamkeeper.domain.files import NewFile, Source, SourceIdentity
from beamkeeper.domain.problems import ProblemKind
from beamkeeper.plugins.api import PROCESSORS, FileProcessor, ProcessorContext, StoredFile
from beamkeeper.plugins.extractors import EXTRACTORS, ExtractionError, Extractor, Recognised, recognise, shipped

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITE_A_PROCESSOR = DOCS / "how-to" / "write-a-processor.md"


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page that are in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def settings_examples() -> Iterator[Any]:
    """Yield every example of a file of settings."""
    for page in sorted(DOCS.rglob("*.md")):
        for number, block in enumerate(blocks(page, "toml")):
            if "[project]" not in block:
                yield pytest.param(block, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("example", list(settings_examples()))
def test_every_example_of_settings_can_be_used(example: str, tmp_path: Path) -> None:
    file = tmp_path / "beamkeeper.toml"
    file.write_text(example)
    assert load(file, environ={"HOME": str(tmp_path)}).file == file


def stored_file(path: Path) -> StoredFile:
    """Return a file as the chain of processors gets it."""
    now = datetime(2026, 11, 1, tzinfo=UTC)
    new = NewFile(
        experiment_uid=UUID(int=1),
        version_uid=UUID(int=2),
        number=1,
        path=f"data/{path.name}",
        size=path.stat().st_size,
        source=Source(agent="hutch-pc", path="detector/scan.txt"),
        identity=SourceIdentity(dev=1, ino=1, size=1, mtime_ns=1, ctime_ns=1),
        storage_area_uid=UUID(int=3),
        modified_at=now,
        finished_at=now,
        transferred_at=now,
    )
    return StoredFile(new=new, local_path=path, source_path=b"/detector/scan.txt")


def test_the_example_of_a_processor_does_what_its_page_says(tmp_path: Path) -> None:
    project = next(tomllib.loads(block) for block in blocks(WRITE_A_PROCESSOR, "toml") if "[project]" in block)
    module_name, class_name = project["project"]["entry-points"][PROCESSORS]["linecount"].split(":")
    module = ModuleType(module_name)
    exec(compile(blocks(WRITE_A_PROCESSOR, "python")[0], module_name, "exec"), module.__dict__)  # noqa: S102
    factory = getattr(module, class_name)
    processor = cast(FileProcessor, factory(factory.options(suffix=".txt")))
    scan = tmp_path / "scan.txt"
    scan.write_text("one\ntwo\n")
    other = tmp_path / "scan.tif"
    other.write_bytes(b"\n\n\n")

    answers = processor.process([stored_file(scan), stored_file(other)], cast(ProcessorContext, None))

    assert [answer.metadata for answer in answers] == [{"lines": 2}, {}]


def test_the_example_of_an_extractor_does_what_its_page_says(tmp_path: Path) -> None:
    page = DOCS / "how-to" / "write-an-extractor.md"
    project = next(tomllib.loads(block) for block in blocks(page, "toml") if "[project]" in block)
    module_name, class_name = project["project"]["entry-points"][EXTRACTORS]["hutch"].split(":")
    module = ModuleType(module_name)
    exec(compile(blocks(page, "python")[0], module_name, "exec"), module.__dict__)  # noqa: S102
    extractor = cast(Extractor, getattr(module, class_name)())
    (tmp_path / "a.hutch").write_bytes(b'HUTCH1\n{"energy_kev": 12.4, "sample": "Ag"}\n\xff')
    assert extractor.extract(str(tmp_path / "a.hutch"))["energy"] == {"value": 12.4, "unit": "keV"}
    assert recognise(os.fsencode(tmp_path / "a.hutch"), {"hutch": extractor.formats}) == Recognised("hutch", "Hutch")
    (tmp_path / "a.hutch").write_bytes(b"HUTCH2\n")
    with pytest.raises(ExtractionError):
        extractor.extract(str(tmp_path / "a.hutch"))


def test_the_reference_of_extractors_has_every_one_with_its_formats() -> None:
    page = (DOCS / "reference" / "extractors.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, formats in shipped().items():
        assert all(known.name in rows[name] or known.name == name for known in formats), name


def test_the_generated_pages_are_those_of_the_code() -> None:
    checked = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "gen_docs.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, f"run `make docs`\n{checked.stderr}"


def test_the_page_on_problems_has_every_kind() -> None:
    page = (DOCS / "how-to" / "hear-of-problems.md").read_text()
    assert [kind for kind in ProblemKind if f"| `{kind}` |" not in page] == []
