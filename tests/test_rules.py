"""House rules that a linter cannot state: sizes, layers, light imports, one code an error, no traces of a machine."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import beamkeeper
from beamkeeper.domain.errors import DmError

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "beamkeeper"
MIGRATIONS = PACKAGE / "db" / "migrations"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40

HEAVY_FOR_HELP = ("pydantic", "httpx2", "rich", "fastapi", "sqlalchemy", "h5py", "numpy")
"""What `dm --help` and its completion do without, so that they answer at once."""

ONLY_IN_SERVER = ("fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "psycopg", "argon2", "h5py", "tifffile")
"""What the extra `server` installs: a base install has none of it."""


def sources() -> Iterator[Path]:
    """Yield every module of the package."""
    yield from sorted(PACKAGE.rglob("*.py"))


def shown(path: Path, line: int | None = None) -> str:
    """Return a place as one reads it in a report."""
    return f"{path.relative_to(ROOT)}" + (f":{line}" if line is not None else "")


def python(code: str, **environment: str) -> str:
    """Run code in an interpreter of its own and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_file_is_longer_than_one_can_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources()}
    assert [f"{shown(path)}: {length} lines" for path, length in lengths.items() if length > MAX_FILE_LINES] == []


def test_no_function_is_longer_than_a_screen() -> None:
    too_long = []
    for path in sources():
        if MIGRATIONS in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    too_long.append(f"{shown(path, node.lineno)} {node.name}: {length} lines")
    assert too_long == []


def calls(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name and line of each call; a method's name begins with a dot."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield f".{node.func.attr}", node.lineno
            elif isinstance(node.func, ast.Name):
                yield node.func.id, node.lineno


@pytest.mark.parametrize(
    ("call", "home"), [(".commit", PACKAGE / "db" / "transaction.py"), ("print", PACKAGE / "cli" / "output.py")]
)
def test_a_call_stays_in_its_one_module(call: str, home: Path) -> None:
    elsewhere = [shown(path, line) for path in sources() if path != home for name, line in calls(path) if name == call]
    assert elsewhere == []


def test_the_package_itself_never_takes_the_door_for_people() -> None:
    """`from beamkeeper import Client` would go past the contracts, which have to overlook that one import."""
    takers = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "beamkeeper":
                takers += [shown(path, node.lineno) for alias in node.names if alias.name == "Client"]
            elif isinstance(node, ast.Attribute) and node.attr == "Client" and isinstance(node.value, ast.Name):
                takers += [shown(path, node.lineno)] if node.value.id == "beamkeeper" else []
    assert takers == []


def modules() -> Iterator[str]:
    """Yield the name of every module that may be imported without a database at hand."""
    for module in pkgutil.walk_packages(beamkeeper.__path__, "beamkeeper."):
        if ".migrations" not in module.name and not module.name.endswith(".__main__"):
            yield module.name


def error_tree(cls: type[DmError]) -> Iterator[type[DmError]]:
    """Yield an error class and all that derive from it."""
    yield cls
    for child in cls.__subclasses__():
        yield from error_tree(child)


def test_every_error_has_a_code_of_its_own() -> None:
    for name in modules():
        importlib.import_module(name)
    codes: dict[str, set[str]] = {}
    for cls in error_tree(DmError):
        codes.setdefault(cls.code, set()).add(f"{cls.__module__}.{cls.__qualname__}")
    assert {code: names for code, names in codes.items() if len(names) > 1} == {}


def loaded(code: str, names: tuple[str, ...], **environment: str) -> list[str]:
    """Return which of the packages named are imported when the code has run."""
    report = f"\nimport sys\nsys.stdout.write('\\n' + ' '.join(n for n in {names!r} if n in sys.modules))"
    return python(code + report, **environment).splitlines()[-1].split()


RUN_DM = """
import contextlib, sys
from beamkeeper.cli.app import main
with contextlib.suppress(SystemExit):
    main()
"""


def test_the_services_start_without_what_an_idle_beamline_does_not_need() -> None:
    heavy = (
        "sqlalchemy.dialects.postgresql",
        "beamkeeper.db.backup",
        "tarfile",
        "difflib",
        "alembic",
        "jinja2",
        "h5py",
    )
    assert loaded("import beamkeeper.serve.run", heavy) == []


def test_help_answers_without_heavy_imports() -> None:
    assert loaded("import sys\nsys.argv = ['dm', '--help']\n" + RUN_DM, HEAVY_FOR_HELP) == []


def test_completion_answers_without_heavy_imports() -> None:
    words = {"_DM_COMPLETE": "bash_complete", "COMP_WORDS": "dm experiment ", "COMP_CWORD": "2"}
    code = "import sys\nsys.argv = ['dm']\n" + RUN_DM
    assert "create" in python(code, **words)
    assert loaded(code, HEAVY_FOR_HELP, **words) == []


def test_the_client_does_without_the_server() -> None:
    assert loaded("import beamkeeper.client\nbeamkeeper.client.Client", ONLY_IN_SERVER) == []


MAKE_A_SITE = """
from contextlib import closing
from pathlib import Path
from beamkeeper.config import Settings
from beamkeeper.domain.status import Service
from beamkeeper.serve import databases
settings = Settings(data_dir=Path({directory!r}))
databases.make_tables(settings, list(Service))
for service in Service:
    with closing(databases.opened(settings, service)):
        pass
"""


def test_who_serves_does_not_keep_what_made_the_tables(tmp_path: Path) -> None:
    # An idle beamline has 150 MB, and the tool that makes tables is 12 of them.
    assert loaded(MAKE_A_SITE.format(directory=str(tmp_path)), ("alembic", "sqlalchemy")) == ["sqlalchemy"]


def check_layers(project: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package in a directory."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "pyproject.toml", "--no-cache"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "fault", "contract"),
    [
        ("db/planted.py", "import beamkeeper.server", "Layers point downwards"),
        ("core/planted.py", "import beamkeeper.cli", "Layers point downwards"),
        ("core/planted.py", "import sqlalchemy", "Only db knows SQL"),
        ("planted/__init__.py", "", "Layers point downwards"),
    ],
    ids=["db imports server", "core imports cli", "core imports SQLAlchemy", "a package without a layer"],
)
def test_a_planted_fault_breaks_a_contract(tmp_path: Path, module: str, fault: str, contract: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "beamkeeper", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = tmp_path / "beamkeeper" / module
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(f"{fault}\n")
    checked = check_layers(tmp_path)
    assert checked.returncode != 0
    assert f"{contract} BROKEN" in checked.stdout
    assert "planted" in checked.stdout.partition("Broken contracts")[2]


def test_the_layers_hold() -> None:
    checked = check_layers(ROOT)
    assert checked.returncode == 0, checked.stdout


def test_nothing_is_skipped_in_ci(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    (tmp_path / "test_skips.py").write_text("import pytest\n\ndef test_skipped():\n    pytest.skip('no time')\n")
    options = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    here, ci = (
        subprocess.run(
            command,
            env={**os.environ, "CI": value, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        for value in ("", "true")
    )
    assert (here.returncode, ci.returncode) == (0, 1), here.stderr + ci.stdout
    assert "no time" in ci.stdout


def texts() -> Iterator[Path]:
    """Yield every file that we write ourselves."""
    ours = (path for path in ROOT.iterdir() if path.is_file() and path.suffix in {"", ".md", ".toml", ".yml"})
    yield from (path for path in ours if path.name != ".git")  # git's own, in a second work tree
    for folder in ("src", "tests", "docs", "scripts", "bench", ".ci"):
        for path in sorted((ROOT / folder).rglob("*")):
            made = {"__pycache__", ".mypy_cache", ".ruff_cache"} & set(path.parts)
            if path.is_file() and not made:
                yield path


def test_no_file_names_a_directory_of_the_machine_that_it_was_written_on() -> None:
    places = re.compile(rb"(?<![\w.}/])/(?:work|root)/")
    found = []
    for path in texts():
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            if places.search(line):
                found.append(shown(path, number))
    assert found == []
