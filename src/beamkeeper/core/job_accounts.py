"""The door through which commands of jobs run under another account, and whether it is open."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence

BEHIND = ("/bin/sh", "-c", 'eval "$(/bin/cat)" && exec "$@" </dev/null', "sh")
"""What takes the environment from its input behind the door: every user of a machine may read command lines."""

PATIENCE_S = 10.0


def door(run_as: Sequence[str], account: str) -> list[str]:
    """Return the words that put a command under an account; none where it is ours, or where root needs none."""
    if not account or pwd.getpwnam(account).pw_uid == os.getuid() or not os.getuid():
        return []
    return [word.replace("{account}", account) for word in run_as]


def behind(words: Sequence[str], mark: str, argv: Sequence[str]) -> list[str]:
    """Return a command that goes through a door; `mark` is a variable that its processes have from the beginning."""
    return [*words, "/usr/bin/env", "-i", mark, *BEHIND, *argv] if words else list(argv)


def refusal(run_as: Sequence[str], account: str) -> str:
    """Return why commands cannot run under an account; nothing where they can."""
    try:
        words = door(run_as, account)
    except KeyError:
        return "there is no such account on this machine"
    if not words:
        return ""
    try:
        done = subprocess.run(
            behind(words, "CHECK=1", ["/bin/true"]), input=b"", capture_output=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"{words[0]} does not answer"
    except OSError as error:
        return f"{words[0]} cannot be started: {error.strerror}"
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return "" if done.returncode == 0 else (said[-1][:300] if said else f"{words[0]} ended with {done.returncode}")
