"""A package such as a beamline writes: made of one module, and installed by pip into a directory of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{package}"
version = "3.2.1"
"""

_BACKEND = '''
"""A build backend of one function, so that nothing else is needed, and no network."""

import zipfile

STEM = "{module}-3.2.1"
FILES = {{
    "{module}.py": open("{module}.py").read(),
    f"{{STEM}}.dist-info/METADATA": "Metadata-Version: 2.1\\nName: {package}\\nVersion: 3.2.1\\n",
    f"{{STEM}}.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    f"{{STEM}}.dist-info/entry_points.txt": "{entry_points}",
}}
RECORD = f"{{STEM}}.dist-info/RECORD"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = f"{{STEM}}-py3-none-any.whl"
    with zipfile.ZipFile(f"{{wheel_directory}}/{{name}}", "w") as wheel:
        for path, content in FILES.items():
            wheel.writestr(path, content)
        wheel.writestr(RECORD, "".join(f"{{path}},,\\n" for path in (*FILES, RECORD)))
    return name
'''


def install_processor(directory: Path, *, package: str, name: str, factory: str, source: str) -> Path:
    """Install a package with one file processor; return the directory to be put on PYTHONPATH.

    `source` is the text of its module, and `factory` the class in it that the entry point `name` stands for.
    """
    module = package.replace("-", "_")
    told = {"package": package, "module": module}
    entry_points = f"[beamkeeper.processors]\\n{name} = {module}:{factory}\\n"
    sources, target = directory / "sources", directory / "site"
    sources.mkdir(parents=True)
    (sources / "pyproject.toml").write_text(_PYPROJECT.format(**told))
    (sources / "backend.py").write_text(_BACKEND.format(**told, entry_points=entry_points))
    (sources / f"{module}.py").write_text(source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    where = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(target), str(sources)]
    done = subprocess.run([*pip, *where], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"pip did not install {package}: {done.stderr}")
    return target
