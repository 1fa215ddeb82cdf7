"""Real servers that rsync sends to: an sshd and a daemon of rsync, each with keys and accounts of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from beamkeeper.domain.names import RelPath
from beamkeeper.domain.storage import STAGING
from beamkeeper.testing.daemons import account, daemon, listens, program
from beamkeeper.testing.servers import free_port

LOOPBACK = "127.0.0.1"
MODULE = "area"
RSYNC_USER, RSYNC_PASSWORD = "dm", "a password of rsync"


class RemotePlace:
    """An experiment's directory on this host, which a transfer reaches through a server."""

    def __init__(self, experiment: Path, url: str) -> None:
        self._staging = experiment / STAGING
        self._staging.mkdir(parents=True)
        self._url = url

    def url(self, batch: str) -> str:
        """Return the staging URL of a batch."""
        return f"{self._url}/{STAGING}/{batch}"

    def read(self, batch: str, path: RelPath) -> bytes | None:
        """Return what is staged under a path; None where nothing is."""
        where = os.path.join(os.fsencode(self._staging / batch), path)
        if not os.path.lexists(where):
            return None
        with open(where, "rb") as file:
            return file.read()


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running sshd that lets our own account in by one key."""

    port: int
    key: Path
    known_hosts: Path
    address: str = LOOPBACK

    def url(self, path: Path) -> str:
        """Return the address of a directory, without the last slash."""
        return f"rsync+ssh://{account()}@{self.address}:{self.port}{quote(str(path))}"


@contextmanager
def sshd(
    address: str = LOOPBACK,
    *,
    wrap: Sequence[str] = (),
    there: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[Sshd]:
    """Run an sshd while the block lasts; on another host by what `wrap` puts before it, seen from `there`."""
    server, keygen = program("sshd", "openssh-server"), program("ssh-keygen", "openssh-client")
    with tempfile.TemporaryDirectory(prefix="beamkeeper-sshd-") as made:
        place = Path(made)
        for name in ("host", "user"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
        port = free_port()
        (place / "known_hosts").write_text(f"[{address}]:{port} {(place / 'host.pub').read_text()}")
        lines = [
            *(f"Port {port}", f"ListenAddress {address}", f"HostKey {place / 'host'}", "PidFile none", "UsePAM no"),
            *(f"AuthorizedKeysFile {place / 'user.pub'}", "StrictModes no", "PasswordAuthentication no"),
            *("PermitRootLogin prohibit-password", "Subsystem sftp internal-sftp"),
        ]
        (place / "config").write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # it insists on it

        def is_up() -> bool:
            with there():
                return listens(port, address)

        with daemon([*wrap, server, "-D", "-e", "-f", str(place / "config")], place / "log", is_up):
            yield Sshd(port, place / "user", place / "known_hosts", address)


@dataclass(frozen=True, slots=True)
class RsyncDaemon:
    """A running daemon of rsync, which gives one directory to one user with a password."""

    port: int
    root: Path
    password_file: Path
    process: subprocess.Popen[bytes]

    def url(self, path: Path) -> str:
        """Return the address of a directory below its root, without the last slash."""
        return f"rsync://{RSYNC_USER}@127.0.0.1:{self.port}/{MODULE}/{quote(str(path.relative_to(self.root)))}"


@contextmanager
def rsync_daemon(root: Path, *, read_only: bool = False) -> Iterator[RsyncDaemon]:
    """Run a daemon of rsync for a directory while the block lasts."""
    server = program("rsync", "rsync")
    with tempfile.TemporaryDirectory(prefix="beamkeeper-rsyncd-") as made:
        place, port = Path(made), free_port()
        for name, text in (("secrets", f"{RSYNC_USER}:{RSYNC_PASSWORD}\n"), ("password", RSYNC_PASSWORD + "\n")):
            (place / name).touch(mode=0o600)
            (place / name).write_text(text)
        lines = [
            *("use chroot = no", "address = 127.0.0.1", f"port = {port}", "reverse lookup = no", "munge symlinks = no"),
            *(f"[{MODULE}]", f"path = {root}", f"read only = {'yes' if read_only else 'no'}"),
            *(f"auth users = {RSYNC_USER}", f"secrets file = {place / 'secrets'}"),
        ]
        if os.geteuid() == 0:
            lines += ["uid = root", "gid = root"]
        (place / "config").write_text("\n".join(lines) + "\n")
        argv = [server, "--daemon", "--no-detach", f"--config={place / 'config'}", f"--log-file={place / 'log'}"]
        with daemon(argv, place / "output", lambda: listens(port)) as process:
            yield RsyncDaemon(port, root, place / "password", process)
