"""A real Slurm of one machine for tests: controller, node, munge, and accounts in a database."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from beamkeeper.testing.daemons import START_S, account, daemon, listens, program, servant
from beamkeeper.testing.servers import ServerNotAvailableError, free_port

PACKAGES = "slurm-wlm munge slurmdbd mariadb-server"
CORES = 4
"""So many the node says it has, whatever the machine has: jobs of tests sleep."""

_CONF = """ClusterName=beamkeeper
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
CredType=cred/munge
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/controller.pid
SlurmdPidFile={place}/node.pid
SlurmctldLogFile={place}/controller.log
SlurmdLogFile={place}/node.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=100000,batch_sched_delay=0,bf_interval=1,bf_continue
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MinJobAge=300
KillWait=2
OverTimeLimit=0
SlurmctldTimeout=30
SlurmdTimeout=30
MessageTimeout=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounts_port}
AccountingStoragePass={place}/munge/socket
AccountingStoreFlags=job_comment
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} CoresPerSocket={cores} RealMemory={memory_mb} State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

_ACCOUNTS = """AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounts_port}
SlurmUser={user}
LogFile={place}/accounts.log
PidFile={place}/accounts.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""


@dataclass
class Slurm:
    """A Slurm that runs; its controller and its node can be ended and started again."""

    place: Path
    environment: Mapping[str, str]
    """What a process needs to find it, beside PATH."""
    starts: Mapping[str, Callable[[ExitStack], object]] = field(default_factory=dict, repr=False)
    """How each of its parts is started."""
    _parts: dict[str, ExitStack] = field(default_factory=dict, repr=False)

    @property
    def node(self) -> str:
        """The name of its only node."""
        return socket.gethostname().partition(".")[0]

    def call(self, *argv: str, timeout_s: float = 30.0) -> str:
        """Run one of its commands, and return what it says."""
        ran = subprocess.run(
            argv, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if ran.returncode:
            raise AssertionError(f"{' '.join(argv)}: {ran.stdout}{ran.stderr}")
        return ran.stdout.strip()

    def start(self, part: str) -> None:
        """Start a part: accounts, controller or node."""
        stack = ExitStack()
        self.starts[part](stack)
        self._parts[part] = stack

    def stop(self, part: str) -> None:
        """End a part, as its administrator would."""
        self._parts.pop(part).close()

    def close(self) -> None:
        """End everything, its jobs first: what runs under a node outlives it."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.call("scancel", "--user", account(), timeout_s=10)
            self.empty(10)
        for part in reversed(list(self._parts)):
            self.stop(part)

    def empty(self, timeout_s: float = 90.0) -> None:
        """Wait until no job is in its queue."""
        deadline = time.monotonic() + timeout_s
        while self.call("squeue", "--noheader"):
            if time.monotonic() > deadline:
                raise AssertionError(f"jobs do not end: {self.call('squeue')}")
            time.sleep(0.1)

    def is_idle(self) -> bool:
        """Whether the controller answers and the node takes jobs."""
        try:
            return "idle" in self.call("sinfo", "--noheader", "--format=%T", timeout_s=10)
        except (AssertionError, subprocess.TimeoutExpired):
            return False


@contextmanager
def slurm() -> Iterator[Slurm]:
    """Run a Slurm while the block lasts, as us: as an ordinary user it runs that user's jobs only."""
    for name in ("slurmctld", "slurmd", "slurmdbd", "munged", "mariadbd", "mariadb-install-db", "sbatch"):
        program(name, PACKAGES)
    with tempfile.TemporaryDirectory(prefix="beamkeeper-slurm-") as made, ExitStack() as stack:
        place = Path(made)
        place.chmod(0o755)
        numbers = {name: free_port() for name in ("controller_port", "node_port", "accounts_port", "database_port")}
        _configure(place, numbers)
        stack.enter_context(_munge(place))
        stack.enter_context(_database(place, numbers["database_port"]))
        yield stack.enter_context(_running(place, numbers))


@contextmanager
def _running(place: Path, ports: Mapping[str, int]) -> Iterator[Slurm]:
    conf = place / "slurm.conf"
    made = Slurm(place, {"SLURM_CONF": str(conf)})

    def accounts(stack: ExitStack) -> object:
        argv = [program("slurmdbd", PACKAGES), "-D"]
        env = {"SLURM_CONF": str(place / "slurmdbd.conf")}
        port = ports["accounts_port"]
        return stack.enter_context(daemon(argv, place / "accounts.out", lambda: listens(port), env=env))

    def controller(stack: ExitStack) -> object:
        argv = [program("slurmctld", PACKAGES), "-D", "-f", str(conf)]
        port = ports["controller_port"]
        return stack.enter_context(daemon(argv, place / "controller.out", lambda: listens(port)))

    def node(stack: ExitStack) -> object:
        argv = [program("slurmd", PACKAGES), "-D", "-f", str(conf), "-N", made.node]
        return stack.enter_context(daemon(argv, place / "node.out", made.is_idle))

    made.starts = {"accounts": accounts, "controller": controller, "node": node}
    try:
        made.start("accounts")
        made.call("sacctmgr", "--immediate", "add", "cluster", "beamkeeper")
        made.start("controller")
        made.start("node")
        yield made
    finally:
        made.close()


def _configure(place: Path, ports: Mapping[str, int]) -> None:
    host = socket.gethostname().partition(".")[0]
    memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 - 500
    told = {"place": place, "host": host, "user": account(), "cores": CORES, "memory_mb": memory_mb, **ports}
    (place / "slurm.conf").write_text(_CONF.format_map(told))
    accounts = place / "slurmdbd.conf"
    accounts.touch(mode=0o600)
    accounts.write_text(_ACCOUNTS.format_map(told))
    for name in ("state", "spool"):
        (place / name).mkdir()


@contextmanager
def _munge(place: Path) -> Iterator[None]:
    """Run munge under an account that is nobody: it refuses root's."""
    home = _owned(place / "munge")
    key = home / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    os.chown(key, servant().pw_uid, servant().pw_gid)
    socket_ = home / "socket"
    files = [f"--{name}-file={home / name}" for name in ("key", "pid", "log", "seed")]
    argv = [*_as_servant(), program("munged", "munge"), "--foreground", "--force", f"--socket={socket_}", *files]
    with daemon(argv, place / "munge.out", socket_.exists):
        yield


@contextmanager
def _database(place: Path, port: int) -> Iterator[None]:
    """Run a MariaDB, without which Slurm keeps no accounts."""
    home, data = _owned(place / "sql"), _owned(place / "sql" / "data")
    made = subprocess.run(
        [
            *(*_as_servant(), program("mariadb-install-db", "mariadb-server"), "--no-defaults", f"--datadir={data}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise ServerNotAvailableError(f"mariadb-install-db: {made.stdout}{made.stderr}")
    socket_ = home / "socket"
    sizes = ("--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0")
    argv = [
        *(*_as_servant(), program("mariadbd", "mariadb-server"), "--no-defaults", f"--datadir={data}"),
        *(f"--socket={socket_}", f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={home / 'pid'}"),
        *("--innodb-lock-wait-timeout=900", "--performance-schema=OFF", *sizes),
    ]
    ask = ["mariadb", "--no-defaults", "--user=root", f"--socket={socket_}"]
    with daemon(argv, place / "sql.out", lambda: _answers([*ask, "--execute=select 1"])) as process:
        users = " ".join(f"create user slurm@'{host}' identified by 'slurm';" for host in ("127.0.0.1", "localhost"))
        rights = " ".join(f"grant all on slurm.* to slurm@'{host}';" for host in ("127.0.0.1", "localhost"))
        subprocess.run([*ask, f"--execute=create database slurm; {users} {rights}"], check=True, timeout=START_S)
        try:
            yield
        finally:
            process.kill()  # nobody reads its files again, which it would put in order for seconds


def _answers(argv: Sequence[str]) -> bool:
    return subprocess.run(argv, capture_output=True, timeout=START_S, check=False).returncode == 0


def _owned(directory: Path) -> Path:
    """Make a directory of the account that servers have which refuse root."""
    directory.mkdir(mode=0o755)
    os.chown(directory, servant().pw_uid, servant().pw_gid)
    return directory


def _as_servant() -> list[str]:
    who = servant()
    if os.geteuid() or not shutil.which("setpriv"):
        return []
    # Another account undoes what was asked of the kernel for our own: it is asked again.
    return ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups", "--pdeathsig", "TERM"]
