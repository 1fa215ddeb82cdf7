"""`dm-library TASK ...`: the programs of the library's workflows, as their stages run them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from beamkeeper.domain.errors import DmError

TASKS: Mapping[str, tuple[str, str]] = {
    "integrate": ("server", "One curve of a frame, by numpy alone."),
    "calibrate": ("powder", "The geometry of a detector from the rings of a standard."),
    "convert": ("formats", "A series of images as one compressed NeXus file."),
    "notify": ("", "A message by mail or HTTP."),
    "powder": ("powder", "One curve of a file, by pyFAI."),
    "quality": ("server", "Extremes, saturated and dead pixels, and frozen frames of a file."),
    "second_copy": ("", "A second copy of a file, verified."),
    "tomography": ("tomography", "Slices of a sample from its projections."),
    "xpcs": ("xpcs", "Correlations of speckles, and how fast they change."),
    "xpcs_8id": ("", "What XPCS at a cluster sends there: a script, parameters, addresses."),
}
"""Each task is a module beside this one: the extra that it needs, and what it does."""

BAD_USAGE = 2
FAILED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run a task; what is wrong with its input or its installation is one sentence, and a status that is not 0."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in TASKS:
        lines = "".join(f"  {name:12} {line}\n" for name, (_, line) in TASKS.items())
        sys.stderr.write(f"usage: dm-library TASK ...; each TASK has --help\n{lines}")
        return 0 if words in (["-h"], ["--help"]) else BAD_USAGE
    task, *rest = words
    try:
        status: int = import_module(f"beamkeeper.library.{task}").main(rest)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{task} needs {error.name}: pip install 'beamkeeper[{TASKS[task][0]}]'\n")
        return FAILED
    except DmError as error:
        sys.stderr.write(f"{error.message}\n")
        return FAILED
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"{named}{error.strerror or error}\n")
        return FAILED
    return status


if __name__ == "__main__":
    sys.exit(main())
