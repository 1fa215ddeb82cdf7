"""A real Grid Engine of one machine for tests: master and execution daemon, in a directory of their own."""

from __future__ import annotations

import os
import pwd
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from beamkeeper.testing.daemons import account, daemon, program
from beamkeeper.testing.servers import ServerNotAvailableError, free_port

PACKAGES = "gridengine-master gridengine-exec gridengine-client"
PROGRAMS = Path("/usr/lib/gridengine")
SHARED = Path("/usr/share/gridengine")
ADMINISTRATOR = "sgeadmin"
"""Who owns its files where root starts it; an ordinary user does so as himself, and for his own jobs only."""

_BOOTSTRAP = """Version: 6.2
admin_user {user}
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {common};{spool}
binary_path {programs}
qmaster_spool_dir {spool}
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""

_QUEUE: Mapping[str, object] = {
    "qname": "all.q",
    "hostlist": "{host}",
    "seq_no": 0,
    **dict.fromkeys(("load_thresholds", "suspend_thresholds", "ckpt_list", "prolog", "epilog"), "NONE"),
    "nsuspend": 1,
    "suspend_interval": "00:05:00",
    "priority": 0,
    "min_cpu_interval": "00:05:00",
    "processors": "UNDEFINED",
    "qtype": "BATCH INTERACTIVE",
    "pe_list": "smp",
    "rerun": "FALSE",
    "slots": 4,
    "tmpdir": "/tmp",  # noqa: S108 - where the scheduler gives each job a directory of its own
    "shell": "/bin/bash",
    "shell_start_mode": "unix_behavior",
    **dict.fromkeys(("starter_method", "suspend_method", "resume_method", "terminate_method"), "NONE"),
    "notify": "00:00:60",
    **dict.fromkeys(("owner_list", "user_lists", "xuser_lists", "subordinate_list", "complex_values"), "NONE"),
    **dict.fromkeys(("projects", "xprojects", "calendar"), "NONE"),
    "initial_state": "default",
    **{
        f"{kind}_{what}": "INFINITY"
        for what in ("rt", "cpu", "fsize", "data", "stack", "core", "rss", "vmem")
        for kind in ("s", "h")
    },
}
_ENVIRONMENT = {
    "pe_name": "smp",
    "slots": 16,
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "start_proc_args": "NONE",
    "stop_proc_args": "NONE",
    "allocation_rule": "$pe_slots",
    "control_slaves": "FALSE",
    "job_is_first_task": "TRUE",
    "urgency_slots": "min",
    "accounting_summary": "FALSE",
    "qsort_args": "NONE",
}


@dataclass(frozen=True)
class GridEngine:
    """A Grid Engine that runs."""

    place: Path
    environment: Mapping[str, str]
    """What a process needs to find it, beside PATH."""

    def call(self, *argv: str, timeout_s: float = 30.0) -> str:
        """Run one of its commands, and return what it says."""
        ran = subprocess.run(
            argv, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if ran.returncode:
            raise AssertionError(f"{' '.join(argv)}: {ran.stdout}{ran.stderr}")
        return ran.stdout.strip()

    def is_ready(self) -> bool:
        """Whether the queue has heard of its host."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            lines = [line for line in self.call("qstat", "-f", timeout_s=10).splitlines() if line.startswith("all.q@")]
            return bool(lines) and "-NA-" not in lines[0]
        return False

    def empty(self, timeout_s: float = 90.0) -> None:
        """Wait until no job is in its queue."""
        deadline = time.monotonic() + timeout_s
        while self.call("qstat", "-u", "*"):
            if time.monotonic() > deadline:
                raise AssertionError(f"jobs do not end: {self.call('qstat')}")
            time.sleep(0.1)


@contextmanager
def grid_engine() -> Iterator[GridEngine]:
    """Run a Grid Engine while the block lasts."""
    for name in ("sge_qmaster", "sge_execd", "qsub"):
        program(name, PACKAGES)
    with tempfile.TemporaryDirectory(prefix="beamkeeper-sge-") as made:
        place = Path(made)
        place.chmod(0o755)
        engine = GridEngine(
            place,
            {
                "SGE_ROOT": str(place / "root"),
                "SGE_CELL": "default",
                "SGE_QMASTER_PORT": str(free_port()),
                "SGE_EXECD_PORT": str(free_port()),
                "SGE_ARCH": "lx-amd64",
            },
        )
        _lay_out(engine)
        _spool(engine)
        env = {**engine.environment, "SGE_ND": "1"}  # stay in the foreground
        with daemon(
            [str(PROGRAMS / "sge_qmaster")], place / "master.out", lambda: _is_master(engine), env=env
        ) as master:
            _set_up(engine)
            with daemon([str(PROGRAMS / "sge_execd")], place / "execd.out", engine.is_ready, env=env) as execd:
                try:
                    yield engine
                finally:
                    with suppress(AssertionError, subprocess.TimeoutExpired):
                        engine.call("qdel", "-u", account())
                        engine.empty(10)
                    for process in (execd, master):
                        process.kill()  # nobody reads again what they would put in order


def _user() -> str:
    if os.geteuid():
        return account()
    try:
        return pwd.getpwnam(ADMINISTRATOR).pw_name
    except KeyError:
        raise ServerNotAvailableError(f"there is no account {ADMINISTRATOR}: apt-get install {PACKAGES}") from None


def _lay_out(engine: GridEngine) -> None:
    """Make the directories that its programs look for, and say where it is."""
    root, host = engine.place / "root", socket.gethostname()
    common, spool = root / "default" / "common", engine.place / "spool" / "qmaster"
    for directory in (common, root / "bin", root / "lib", root / "utilbin", spool / "job_scripts"):
        directory.mkdir(parents=True)
    (engine.place / "spool" / "execd").mkdir()
    for name in ("bin", "lib", "utilbin"):
        (root / name / "lx-amd64").symlink_to(PROGRAMS)
    (root / "util").symlink_to(SHARED / "util")
    (common / "host_aliases").write_text(f"{host} localhost\n")
    (common / "act_qmaster").write_text(f"{host}\n")
    told = {"user": _user(), "common": common, "spool": spool, "programs": PROGRAMS}
    (common / "bootstrap").write_text(_BOOTSTRAP.format_map(told))
    changes = {
        "/var/spool/gridengine/execd": str(engine.place / "spool" / "execd"),
        r"(?m)^min_([ug])id.*": r"min_\1id 0",
        "00:00:40": "00:00:03",
        "flush_time=00:00:15": "accounting_flush_time=00:00:00 flush_time=00:00:01",
    }
    text = (SHARED / "default-configuration").read_text()
    for pattern, new in changes.items():
        text = re.sub(pattern, new, text)
    (engine.place / "configuration").write_text(text)
    if not os.geteuid():
        owner = pwd.getpwnam(_user())
        for path in (engine.place, *engine.place.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def _spool(engine: GridEngine) -> None:
    """Write what its master begins with."""
    spool = f"{engine.place}/root/default/common;{engine.place}/spool/qmaster"
    as_user = [] if os.geteuid() else ["setpriv", f"--reuid={_user()}", f"--regid={_user()}", "--clear-groups"]
    resources = SHARED / "util" / "resources"
    for argv in (
        ["spoolinit", "classic", "libspoolc", spool, "init"],
        ["spooldefaults", "configuration", str(engine.place / "configuration")],
        ["spooldefaults", "complexes", str(resources / "centry")],
        ["spooldefaults", "usersets", str(resources / "usersets")],
        ["spooldefaults", "managers", account(), _user()],
    ):
        engine.call(*as_user, str(PROGRAMS / argv[0]), *argv[1:])


def _is_master(engine: GridEngine) -> bool:
    with suppress(AssertionError, subprocess.TimeoutExpired):
        return engine.call("qconf", "-sh", timeout_s=10) is not None
    return False


def _set_up(engine: GridEngine) -> None:
    """Make a queue on this host, and have the scheduler look every second."""
    host = socket.gethostname()
    with suppress(AssertionError):  # it may have made itself one
        engine.call("qconf", "-ah", host)
    engine.call("qconf", "-as", host)
    engine.call("qconf", "-Ap", _file(engine, "environment", _lines(_ENVIRONMENT)))
    engine.call("qconf", "-Aq", _file(engine, "queue", [line.replace("{host}", host) for line in _lines(_QUEUE)]))
    text = engine.call("qconf", "-ssconf")
    for name, value in (("schedule_interval", "0:0:1"), ("flush_submit_sec", "1"), ("flush_finish_sec", "1")):
        text = re.sub(rf"(?m)^{name} .*", f"{name} {value}", text)
    engine.call("qconf", "-Msconf", _file(engine, "scheduler", [text]))


def _lines(values: Mapping[str, object]) -> list[str]:
    return [f"{name} {value}" for name, value in values.items()]


def _file(engine: GridEngine, name: str, lines: Sequence[str]) -> str:
    path = engine.place / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)
