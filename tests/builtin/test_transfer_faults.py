"""What goes wrong on the way to real servers: each fault has a code of its own, and a sentence that says what to do."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.builtin.gridftp import GridFTPOptions, GridFTPTransfer
from beamkeeper.builtin.rclone import RcloneTransfer, RcloneTransferOptions
from beamkeeper.builtin.rsync import RsyncOptions, RsyncTransfer
from beamkeeper.cli.app import run
from beamkeeper.domain.errors import DestinationError, InvalidError
from beamkeeper.domain.storage import STAGING
from beamkeeper.plugins.api import Transfer
from beamkeeper.testing.conformance import Sources, send_all
from beamkeeper.testing.daemons import servant
from beamkeeper.testing.grid import USER, Authority, GridFTP, gsi_gridftp, myproxy
from beamkeeper.testing.objects import BUCKET, REMOTE, S3, s3, write_config
from beamkeeper.testing.remotes import RsyncDaemon, Sshd, rsync_daemon, sshd
from beamkeeper.testing.servers import ServerNotAvailableError
from beamkeeper.testing.slapd import slapd


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    (tmp_path / "source").mkdir()
    return Sources(tmp_path / "source", is_flat=True)


@pytest.fixture
def experiment(open_to_all: Path) -> Path:
    made = open_to_all / "experiment"
    (made / STAGING).mkdir(parents=True)
    os.chown(made / STAGING, servant().pw_uid, servant().pw_gid)
    return made


def fault(transfer: Transfer, sources: Sources, url: str, *, size: int = 1000) -> tuple[Any, str]:
    """Send a file to where it cannot go; return the code and the sentence."""
    with pytest.raises(DestinationError) as caught:
        send_all(transfer, [sources.add(b"a", os.urandom(size))], f"{url}/{STAGING}/b1")
    return caught.value.details["code"], caught.value.message


def by_ssh(server: Sshd, **more: Any) -> RsyncTransfer:
    options = {"key_file": server.key, "known_hosts": server.known_hosts, "tries": 1, **more}
    return RsyncTransfer(RsyncOptions.model_validate(options))


@contextmanager
def small_disk(where: Path, *, options: str) -> Iterator[None]:
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def test_a_host_key_that_changed_stops_all(ssh_server: Sshd, sources: Sources, experiment: Path) -> None:
    other = experiment / "known_hosts"
    with sshd() as impostor:
        other.write_text(impostor.known_hosts.read_text().replace(str(impostor.port), str(ssh_server.port)))
    code, why = fault(by_ssh(ssh_server, known_hosts=other), sources, ssh_server.url(experiment))
    assert (code, "compare its key" in why) == ("host_key", True)
    assert list((experiment / STAGING).iterdir()) == []


def test_a_key_that_is_not_accepted_says_so(
    ssh_server: Sshd, rsync_server: RsyncDaemon, sources: Sources, experiment: Path
) -> None:
    key = ssh_server.key.parent / "host"
    code, why = fault(by_ssh(ssh_server, key_file=key), sources, ssh_server.url(experiment))
    assert (code, "key_file" in why) == ("credential", True)
    password = experiment / "password"
    password.touch(mode=0o600)
    password.write_text("another\n")
    wrong = RsyncTransfer(RsyncOptions(password_file=password, tries=1))
    code, why = fault(wrong, sources, rsync_server.url(rsync_server.root))
    assert (code, "password_file" in why) == ("credential", True)


def test_a_storage_that_is_not_mounted_is_not_made(
    ssh_server: Sshd, ftp_server: GridFTP, sources: Sources, open_to_all: Path
) -> None:
    code, why = fault(by_ssh(ssh_server), sources, ssh_server.url(open_to_all / "absent"))
    assert (code, "mounted" in why) == ("unreachable", True), why
    code, why = fault(GridFTPTransfer(GridFTPOptions()), sources, ftp_server.url(open_to_all / "absent"))
    assert (code, "mounted" in why) == ("unreachable", True), why
    assert not (open_to_all / "absent").exists()


@contextmanager
def mute(certificate: Path | None = None) -> Iterator[str]:
    """Give the address of a server that takes connections and says nothing; under TLS, if it has a certificate."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def shake_hands() -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(str(certificate), str(certificate and certificate.with_suffix(".key")))
            with suppress(OSError):
                while True:
                    with suppress(ssl.SSLError), context.wrap_socket(listening.accept()[0], server_side=True):
                        pass

        if certificate is not None:
            threading.Thread(target=shake_hands, daemon=True).start()
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def fault_of_s3(config: Path, sources: Sources, *, stall_s: float = 60) -> tuple[Any, str]:
    transfer = RcloneTransfer(RcloneTransferOptions(config=config, stall_s=stall_s))
    try:
        return fault(transfer, sources, f"rclone://{REMOTE}/{BUCKET}/faults")
    finally:
        transfer.close()


def test_an_object_store_that_takes_nothing_says_why(s3_server: S3, sources: Sources, tmp_path: Path) -> None:
    """It fails as a whole, so that its files wait, and are not given up one by one."""
    config, ca = tmp_path / "rclone.conf", tmp_path / "ca"
    with s3("--read-only") as server:
        code, why = fault_of_s3(server.config, sources)
    assert (code, "may be written" in why) == ("unreachable", True), why  # all that it says is status 500
    write_config(config, s3_server.port, "another secret")
    code, why = fault_of_s3(config, sources)
    assert (code, "keys in the configuration" in why) == ("credential", True), why
    with mute() as url:
        config.write_text(s3_server.config.read_text().replace(f"http://127.0.0.1:{s3_server.port}", url))
        code, why = fault_of_s3(config, sources, stall_s=1)
    assert (code, "does not answer" in why) == ("hanging", True), why
    assert run(["tls", "make-ca", str(ca)]) == run(["tls", "issue", str(ca), "s3", "127.0.0.1"]) == 0
    with mute(ca / "s3.pem") as url:
        config.write_text(s3_server.config.read_text().replace(f"http://127.0.0.1:{s3_server.port}", url))
        code, why = fault_of_s3(config, sources)
    assert (code, "the CA that rclone trusts" in why) == ("certificate", True), why


def test_a_server_that_is_down_is_unreachable(sources: Sources, experiment: Path) -> None:
    with sshd() as gone:
        pass
    assert fault(by_ssh(gone), sources, gone.url(experiment))[0] == "unreachable"
    assert fault(GridFTPTransfer(GridFTPOptions(tries=1)), sources, "ftp://127.0.0.1:1/x")[0] == "unreachable"


@pytest.mark.parametrize("transport", ["rsync", "gridftp"])
def test_a_disk_that_is_full_or_read_only_is_told_apart(
    transport: str, ssh_server: Sshd, ftp_server: GridFTP, sources: Sources, experiment: Path
) -> None:
    transfer: Transfer = by_ssh(ssh_server) if transport == "rsync" else GridFTPTransfer(GridFTPOptions(tries=1))
    url = (ssh_server if transport == "rsync" else ftp_server).url(experiment)
    with small_disk(experiment, options="size=64k,mode=777"):
        (experiment / STAGING).mkdir(parents=True)
        os.chown(experiment / STAGING, servant().pw_uid, servant().pw_gid)
        code, why = fault(transfer, sources, url, size=1_000_000)
        assert (code, "free space" in why) == ("full", True)
        subprocess.run(["mount", "-o", "remount,ro", str(experiment)], check=True)
        code, why = fault(transfer, sources, url)
        assert (code, "make it writable" in why) == ("read_only", True)


def test_a_daemon_that_takes_nothing_is_read_only(sources: Sources, experiment: Path) -> None:
    with rsync_daemon(experiment.parent, read_only=True) as server:
        transfer = RsyncTransfer(RsyncOptions(password_file=server.password_file))
        assert fault(transfer, sources, server.url(experiment))[0] == "read_only"


def test_a_far_side_that_hangs_is_left(sources: Sources, experiment: Path) -> None:
    with rsync_daemon(experiment.parent) as server:
        hanging = f"rsync://127.0.0.1:{server.port}/area/experiment"
        transfer = RsyncTransfer(RsyncOptions(password_file=server.password_file, stall_s=1))
        process = server.process
        process.send_signal(signal.SIGSTOP)
        try:
            code, why = fault(transfer, sources, hanging)
        finally:
            process.send_signal(signal.SIGCONT)
    assert (code, "does not answer" in why) == ("hanging", True)


Change = Callable[[Authority, Path], GridFTPOptions]


@pytest.mark.parametrize(
    ("change", "code", "hint"),
    [
        pytest.param(
            lambda ca, _: GridFTPOptions(proxy_file=ca.expired(USER), ca_dir=ca.trusted),
            *("credential", "get a new proxy"),
            id="expired",
        ),
        pytest.param(
            lambda ca, _: GridFTPOptions(proxy_file=ca.proxy("stranger"), ca_dir=ca.trusted),
            *("credential", "gridmap"),
            id="stranger",
        ),
        pytest.param(
            lambda ca, tmp: GridFTPOptions(proxy_file=ca.proxy(USER), ca_dir=Authority(tmp, "Another CA").trusted),
            *("certificate", "ca_dir"),
            id="wrong CA",
        ),
        pytest.param(
            lambda ca, tmp: GridFTPOptions(proxy_file=tmp / "none", ca_dir=ca.trusted),
            *("credential", "proxy_file"),
            id="none",
        ),
    ],
)
def test_a_grid_credential_that_is_no_good_says_why(
    change: Change,
    code: str,
    hint: str,
    *,
    authority: Authority,
    gsi_server: GridFTP,
    sources: Sources,
    experiment: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    options = change(authority, tmp_path_factory.mktemp("other"))
    found, why = fault(GridFTPTransfer(options), sources, gsi_server.url(experiment))
    assert (found, hint in why) == (code, True), why


def test_a_server_with_a_certificate_of_another_name_is_not_trusted(
    authority: Authority, badge: Path, sources: Sources, experiment: Path
) -> None:
    with gsi_gridftp(authority, common_name=USER, host="other.example.org") as impostor:
        transfer = GridFTPTransfer(GridFTPOptions(proxy_file=badge, ca_dir=authority.trusted))
        code, why = fault(transfer, sources, impostor.url(experiment))
    assert code == "certificate", why


def test_an_rsync_that_is_too_old_or_missing_is_named(tmp_path: Path, ssh_server: Sshd, sources: Sources) -> None:
    old = tmp_path / "old-rsync"
    old.write_text("#!/bin/sh\necho 'rsync  version 3.1.3  protocol version 31'\n")
    old.chmod(0o755)
    code, why = fault(by_ssh(ssh_server, rsync=str(old)), sources, ssh_server.url(tmp_path))
    assert (code, "3.2 or newer" in why) == ("failed", True)
    code, why = fault(by_ssh(ssh_server, rsync="no-such-rsync"), sources, ssh_server.url(tmp_path))
    assert (code, "install the package rsync" in why) == ("failed", True)


@pytest.mark.parametrize("url", ["rsync+ssh://-esh@host/a", "ftp://host name/a", "ftp://ada:secret@127.0.0.1:1/a"])
def test_an_address_from_the_site_gives_no_option_to_a_program(url: str, sources: Sources) -> None:
    transfer: Transfer = GridFTPTransfer(GridFTPOptions()) if url.startswith("ftp") else RsyncTransfer(RsyncOptions())
    with pytest.raises(InvalidError, match="address of a storage area"):
        send_all(transfer, [sources.add(b"a", b"1")], f"{url}/{STAGING}/b1")


def test_one_file_that_is_refused_does_not_hold_up_the_others(
    rsync_server: RsyncDaemon, sources: Sources, tmp_path: Path
) -> None:
    experiment = rsync_server.root / tmp_path.name
    items = [sources.add(b"%d" % number, b"1") for number in range(8)]
    in_the_way = experiment / STAGING / "b1" / items[6].target.decode()
    in_the_way.mkdir(parents=True)
    (in_the_way / "file").touch()
    transfer = RsyncTransfer(RsyncOptions(password_file=rsync_server.password_file))
    results = send_all(transfer, items, f"{rsync_server.url(experiment)}/{STAGING}/b1")
    failed = [item for item in items if results[item.version_uid].error is not None]
    assert failed == [items[6]]
    assert isinstance(results[items[6].version_uid].error, DestinationError)


def test_batches_one_after_the_other_share_a_connection_until_it_breaks(
    sources: Sources, experiment: Path, open_to_all: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(open_to_all))
    with sshd() as server:
        transfer = by_ssh(server)

        def send(batch: str) -> int:
            """Return how many connections were made so far."""
            url, item = f"{server.url(experiment)}/{STAGING}/{batch}", sources.add(os.fsencode(batch), b"a")
            assert send_all(transfer, [item], url)[item.version_uid].error is None
            assert (experiment / STAGING / batch / item.target.decode()).read_bytes() == b"a"
            return (server.key.parent / "log").read_text().count("Accepted publickey")

        assert [send("b1"), send("b2"), send("b3")] == [1, 1, 1]
        (shared,) = open_to_all.glob("beamkeeper-ssh-*/1")
        subprocess.run(["ssh", "-O", "exit", "-S", str(shared), "far"], check=True, capture_output=True)
        assert send("b4") == 2
        fault(transfer, sources, server.url(experiment / "absent"))
        assert send("b6") == 3  # over a connection on which something failed nothing more goes


CUT = """\
import os, subprocess, sys
mark, left = sys.argv[1], 3_000_000
if os.path.exists(mark):
    os.execvp("ssh", ["ssh", *sys.argv[2:]])
open(mark, "w").close()
ssh = subprocess.Popen(["ssh", *sys.argv[2:]], stdin=subprocess.PIPE)
while left > 0 and (piece := os.read(0, 65536)):
    os.write(ssh.stdin.fileno(), piece)
    left -= len(piece)
ssh.kill()
"""


def test_a_connection_that_breaks_goes_on_where_it_was(
    ssh_server: Sshd, sources: Sources, experiment: Path, tmp_path: Path
) -> None:
    content = os.urandom(8_000_000)
    item, mark = sources.add(b"large", content), tmp_path / "was-cut"
    (tmp_path / "cut.py").write_text(CUT)
    transfer = by_ssh(ssh_server, ssh=f"{sys.executable} {tmp_path}/cut.py {mark}", tries=2)
    result = send_all(transfer, [item], f"{ssh_server.url(experiment)}/{STAGING}/b1")[item.version_uid]
    assert (result.error, result.size) == (None, len(content))
    assert mark.exists()
    assert (experiment / STAGING / "b1" / item.target.decode()).read_bytes() == content


def test_a_name_and_a_password_of_the_directory_server_give_the_credential_that_a_transfer_uses(
    authority: Authority, gsi_server: GridFTP, sources: Sources, experiment: Path
) -> None:
    """The chain of sites: MyProxy asks PAM, that asks LDAP; it is an authority itself, and GridFTP knows the name."""
    with ExitStack() as stack:
        try:
            people = stack.enter_context(slapd())
            people.add_person(USER, "a good password", number=1001)
            proxies = stack.enter_context(myproxy(authority, people))
        except ServerNotAvailableError as error:
            pytest.skip(str(error))
        badge = experiment / "badge"
        assert proxies.logon(USER, "a bad password", badge).returncode != 0
        assert proxies.logon("nobody", "a good password", badge).returncode != 0
        assert proxies.logon(USER, "", badge).returncode != 0
        assert not badge.exists()
        done = proxies.logon(USER, "a good password", badge)
        assert done.returncode == 0, done.stderr
    transfer = GridFTPTransfer(GridFTPOptions(proxy_file=badge, ca_dir=authority.trusted))
    item = sources.add(b"a", b"frame")
    results = send_all(transfer, [item], f"{gsi_server.url(experiment)}/{STAGING}/b1")
    assert results[item.version_uid].error is None
    assert (experiment / STAGING / "b1" / item.target.decode()).read_bytes() == b"frame"
