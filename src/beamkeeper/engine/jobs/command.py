"""Starting the command of an attempt: without a copy of the runner's memory where that will do, else by a fork.

A fork copies page tables, and touches pages in both processes: for a short command that is most of what it costs. So
the runner enters the command's control groups itself, starts it by `vfork`, and leaves them again.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
from typing import Any

from beamkeeper.engine.jobs import tree

Order = dict[str, Any]
Fault = dict[str, Any]


def start(order: Order, groups: list[str], outputs: list[int]) -> tuple[int, Fault | None]:
    """Start a command that writes to these descriptors; return its process, or 0 and why it could not be started."""
    return _spawned(order, groups, outputs) if _is_plain(order) else _forked(order, groups, outputs)


def _is_plain(order: Order) -> bool:
    """Whether a command needs nothing that is done in its process before it begins: an account, a door, a limit."""
    is_limited = order["memory_bytes"] or order["file_bytes"] or order["processes"] == 1
    return not (order["door"] or order["uid"] is not None or is_limited)


def _spawned(order: Order, groups: list[str], outputs: list[int]) -> tuple[int, Fault | None]:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        tree.enter(groups)
        try:
            return _popen(order, null, outputs), None
        finally:
            tree.leave(groups)
    except OSError as error:
        what = "directory" if error.filename == order["cwd"] else "command"
        return 0, {"what": what, "error": error.strerror or str(error)}
    finally:
        os.close(null)


def _popen(order: Order, null: int, outputs: list[int]) -> int:
    """Start a command: a program itself where its stage says no more, else, and where that fails, the shell."""
    own = {**order["environment"], "PWD": order["cwd"]}  # as the shell would set it
    for argv in [order["words"], order["argv"]] if order["words"] else [order["argv"]]:
        try:
            process = subprocess.Popen(
                argv,
                stdin=null,
                stdout=outputs[0],
                stderr=outputs[1],
                cwd=order["cwd"],
                env=own if argv is order["words"] else order["environment"],
                umask=0o027,
                start_new_session=True,
            )
        except OSError as error:
            if argv is order["argv"] or error.filename == order["cwd"]:
                raise
        else:
            process.returncode = 0  # it is ours to wait for
            return process.pid
    raise OSError("there is no command")


def _forked(order: Order, groups: list[str], outputs: list[int]) -> tuple[int, Fault | None]:
    fault_read, fault_write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _become(order, groups, outputs, fault_write, parent)
    os.close(fault_write)
    told = b""
    while piece := os.read(fault_read, 4096):  # ends as the command is executed
        told += piece
    os.close(fault_read)
    return pid, json.loads(told) if told else None


def _become(order: Order, groups: list[str], outputs: list[int], fault_pipe: int, parent: int) -> None:
    """Turn this forked process into the command; never returns."""
    what = "start"
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        tree.enter(groups)
        os.dup2(_exports(order["environment"]) if order["door"] else os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        os.umask(0o027)
        _limit_resources(order, groups)
        if order["uid"] is not None:
            what = "account"
            os.initgroups(order["account"], order["gid"])
            os.setresgid(order["gid"], order["gid"], order["gid"])
            os.setresuid(order["uid"], order["uid"], order["uid"])
        tree.die_with_parent()
        if os.getppid() != parent:
            os._exit(125)
        what = "directory"
        os.chdir(order["cwd"])
        what = "command"
        environment = {} if order["door"] else order["environment"]
        os.execve(order["argv"][0], order["argv"], environment)  # noqa: S606 - the shell, or the door, is argv[0]
    except BaseException as error:
        code = getattr(error, "strerror", None) or str(error)
        os.write(fault_pipe, json.dumps({"what": what, "error": code}).encode())
    os._exit(126)


def _exports(environment: dict[str, str]) -> int:
    """Return an input in which the shell behind a door finds its environment: in memory, and read once."""
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    descriptor = os.memfd_create("environment", os.MFD_CLOEXEC)
    with open(os.dup(descriptor), "wb") as file:
        file.write(os.fsencode(text))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _limit_resources(order: Order, groups: list[str]) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if order["file_bytes"]:
        _lower(resource.RLIMIT_FSIZE, order["file_bytes"])
    if order["memory_bytes"] and not any("/memory/" in path for path in groups):
        _lower(resource.RLIMIT_AS, order["memory_bytes"])


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))
