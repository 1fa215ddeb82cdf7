"""All processes of an attempt: finding them, wherever they went, and ending them.

Three ways lead to them. The runner adopts what its command leaves behind (a subreaper), so all are its descendants.
Where control groups may be made, they are in one. And each has its attempt in its environment, which finds them
when the runner itself was killed and there are no control groups. Imports next to nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Sequence

MARKER = "BEAMKEEPER_ATTEMPT"
"""The variable in the environment of every process of an attempt."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)

GROUP = "beamkeeper-jobs"
_MOUNTS = {
    "unified": ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
    "pids": ("/sys/fs/cgroup/pids",),
    "memory": ("/sys/fs/cgroup/memory",),
}


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Ask the kernel for a signal when the parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None where it has ended."""
    try:
        after_name = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in (b"Z", b"X") else int(after_name[19])


def boot_id() -> str:
    """Return which boot of this machine it is."""
    return _read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()


def children(pid: int) -> list[int]:
    """Return the children of a process, those that are dead and not waited for among them."""
    try:
        return [int(word) for word in _read(f"/proc/{pid}/task/{pid}/children").split()]
    except FileNotFoundError:
        return _children_by_stat(pid) if os.path.exists(f"/proc/{pid}/stat") else []
    except OSError:
        return []


def _children_by_stat(parent: int) -> list[int]:
    """Return children on a kernel without CONFIG_PROC_CHILDREN."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    if int(file.read().rpartition(b")")[2].split()[1]) == parent:
                        found.append(int(name))
            except (OSError, IndexError, ValueError):
                continue
    return found


def descendants(pid: int) -> list[int]:
    """Return everything below a process."""
    found, waiting = [], [pid]
    while waiting:
        more = children(waiting.pop())
        found += more
        waiting += more
    return found


def group_roots() -> dict[str, str]:
    """Return the directories in which this process may make control groups, by kind; none where it may not."""
    roots: dict[str, str] = {}
    with open("/proc/self/cgroup") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    own = {name: path for _, names, path in lines for name in (names.split(",") if names else ["unified"])}
    for kind, mounts in _MOUNTS.items():
        for mount in mounts:
            if kind == "unified" and not os.path.exists(f"{mount}/cgroup.procs"):
                continue
            root = f"{mount}{own.get(kind, '/').rstrip('/')}/{GROUP}"
            try:
                os.makedirs(root, exist_ok=True)
            except OSError:
                continue
            if os.access(root, os.W_OK):
                roots[kind] = root
    return roots


def make_groups(roots: dict[str, str], attempt: str, *, processes: int, memory_bytes: int) -> list[str]:
    """Make the control groups of an attempt, with their limits; what cannot be made is left out."""
    made = []
    limits = {"unified": {}, "pids": {"pids.max": processes}, "memory": {"memory.limit_in_bytes": memory_bytes}}
    for kind, root in roots.items():
        if kind != "unified" and not any(limits[kind].values()):
            continue
        path = f"{root}/{attempt}"
        try:
            os.mkdir(path)
            for name, value in limits[kind].items():
                _put(f"{path}/{name}", str(value))
            if kind == "unified":
                _limit_unified(path, processes, memory_bytes)
        except OSError:
            continue
        made.append(path)
    return made


def _limit_unified(path: str, processes: int, memory_bytes: int) -> None:
    for name, value in (("pids.max", processes), ("memory.max", memory_bytes), ("memory.swap.max", 0)):
        if value and os.path.exists(f"{path}/{name}"):
            _put(f"{path}/{name}", str(value))


def groups_of(roots: dict[str, str], attempt: str) -> list[str]:
    """Return the control groups that an attempt has."""
    paths = [f"{root}/{attempt}" for root in roots.values()]
    return [path for path in paths if os.path.isdir(path)]


def enter(groups: list[str]) -> None:
    """Put this process into control groups."""
    for path in groups:
        _put(f"{path}/cgroup.procs", "0")


def leave(groups: list[str]) -> None:
    """Put this process back to where it was before it entered."""
    for path in groups:
        _put(f"{os.path.dirname(os.path.dirname(path))}/cgroup.procs", "0")


def members(groups: list[str]) -> set[int]:
    """Return the processes in control groups."""
    found: set[int] = set()
    for path in groups:
        try:
            found.update(int(line) for line in _read(f"{path}/cgroup.procs").split())
        except OSError:
            continue
    return found


def was_out_of_memory(groups: list[str]) -> bool:
    """Whether the kernel killed for the limit of memory of a group."""
    for path in groups:
        for name in ("memory.events", "memory.oom_control"):
            try:
                with open(f"{path}/{name}") as file:
                    if any(line.startswith("oom_kill ") and line.split()[1] != "0" for line in file):
                        return True
            except OSError:
                continue
    return False


def remove_groups(groups: list[str]) -> None:
    """Remove control groups that are empty."""
    for path in groups:
        for _ in range(50):
            try:
                os.rmdir(path)
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.002)  # its last process is on its way out
            else:
                break


def kill(pids: set[int], number: int = signal.SIGKILL) -> set[int]:
    """Send a signal to processes; return those that we may not send one to."""
    refused = set()
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        except PermissionError:
            refused.add(pid)
    return refused


def kill_groups(groups: list[str]) -> None:
    """Kill everything in control groups at once, where the kernel can do so."""
    for path in groups:
        try:
            _put(f"{path}/cgroup.kill", "1")
        except OSError:
            continue


def marked(attempt: str) -> set[int]:
    """Return the processes that have an attempt in their environment, as far as we may look."""
    wanted = f"{MARKER}={attempt}".encode()
    found = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.add(int(name))
        except OSError:
            continue
    return found


_SWEEP = """for f in $(grep -slzFx -e "$1" /proc/[0-9]*/environ)
do p=${f#/proc/}; kill -9 "${p%/*}"; found=1
done
exit ${found:-0}
"""
"""Kills what has a variable in its environment; its status is 1 where there was something."""


def end_left(roots: dict[str, str], attempt: str, door: Sequence[str] = (), patience_s: float = 10.0) -> bool:
    """End everything that an attempt has left whose runner is gone; tell whether nothing of it lives.

    What ran under another account is looked for through the door that it came by.
    """
    groups = groups_of(roots, attempt)
    deadline = time.monotonic() + patience_s
    while True:
        kill_groups(groups)
        found = {pid for pid in members(groups) | marked(attempt) if start_ticks(pid) is not None}
        below = {pid for parent in found for pid in descendants(parent)}
        if not found and not (door and call([*door, "/bin/sh", "-c", _SWEEP, "sh", f"{MARKER}={attempt}"]) == 1):
            remove_groups(groups)
            return True
        if time.monotonic() > deadline:
            return False
        kill(found | below)
        time.sleep(0.01)


def call(argv: Sequence[str]) -> int | None:
    """Run a short command, and return its status; what it says does not matter."""
    pid = os.fork()
    if not pid:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.execv(argv[0], list(argv))  # noqa: S606 - there is no shell to go through
        finally:
            os._exit(127)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def _put(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: str) -> bytes:
    """Read a file of the kernel's: a file object costs as much as ten of these, for each attempt."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = piece = os.read(descriptor, 1 << 16)
        while piece:
            piece = os.read(descriptor, 1 << 16)
            data += piece
        return data
    finally:
        os.close(descriptor)
