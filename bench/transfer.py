"""Measure the transfers against the bare programs, on loopback: `make bench-transfer`.

One line a row, with tabs between: bench, name, figure, what is asked, ok or short.
Ours is everything that makes a file stored: sent from sources held open, hashed, made durable, read back, named. Theirs
is the program's own copy of the same tree, followed by md5sum on the far side.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import transfer_tar
from report import Row, machine, status, table, write_part
from uuid6 import uuid7

from beamkeeper.builtin.gridftp import GridFTPOptions, GridFTPTransfer
from beamkeeper.builtin.rclone import RcloneTransfer, RcloneTransferOptions
from beamkeeper.builtin.rsync import RsyncOptions, RsyncTransfer
from beamkeeper.domain.files import Verify
from beamkeeper.domain.names import RelPath, to_b64
from beamkeeper.domain.storage import STAGING, NewPublishItem, Outcome
from beamkeeper.engine.batch import StagedBatch
from beamkeeper.engine.beneath import Beneath
from beamkeeper.engine.readback import Reader
from beamkeeper.plugins.api import Transfer, TransferItem, TransferResult
from beamkeeper.plugins.rclone import find_program
from beamkeeper.testing.conformance import identity_of, never
from beamkeeper.testing.daemons import account
from beamkeeper.testing.grid import USER, Authority, gsi_gridftp
from beamkeeper.testing.objects import s3
from beamkeeper.testing.remotes import RSYNC_PASSWORD, rsync_daemon, sshd

BATCH = 256
AT_ONCE = 2
LIMIT = 1.3
TEXT = """\
## Transfers

What `make bench-transfer` measured here, in one run on loopback. Ours is sent, hashed, made durable, read back and
named; bare is the program's own copy of the tree, with md5sum after it. Each is measured by turns, and the medians
are compared.
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of sending that is compared."""

    name: str
    ours: Callable[[Path], Transfer]
    url: Callable[[Path], str]
    theirs: Callable[[Path], Sequence[str]]
    env: dict[str, str]


def source_tree(directory: Path, files: int, large: int) -> None:
    """Write many small files and two large ones."""
    for number in range(files):
        where = directory / f"scan_{number % 4}" / f"{number:05d}.dat"
        where.parent.mkdir(exist_ok=True)
        where.write_bytes(os.urandom(100_000))
    for number in range(2):
        (directory / f"large_{number}.dat").write_bytes(os.urandom(large))


def batches(directory: Path) -> Iterator[list[TransferItem]]:
    """Yield the files of a tree as a station sends them."""
    items = []
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        uid = uuid7()
        staged = RelPath(str(uid).encode())
        below = RelPath(os.fsencode(Path("data") / path.relative_to(directory)))
        items.append(TransferItem(uid, os.fsencode(path), below, identity_of(path.lstat()), staged))
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def deliver(transfer: Transfer, url: str, experiment: Path, items: Sequence[TransferItem], reader: Reader) -> None:
    """Send a batch and publish it."""
    batch = str(uuid7())
    results = {result.version_uid: result for result in transfer.send(items, f"{url}/{STAGING}/{batch}", never)}
    asked = [_asked(item, results[item.version_uid]) for item in items]
    with Beneath(experiment) as beneath:
        staged = StagedBatch(beneath, f"{STAGING}/{batch}".encode(), reader, Verify.READ_BACK)
        staged.make_durable(asked)
        staged.look(asked)
        outcomes = {staged.publish_one(item)[0] for item in asked}
        staged.sync_names()
        beneath.remove_tree(staged.staging)
    if outcomes != {Outcome.STORED}:
        raise SystemExit(f"not everything was stored: {outcomes}")


def _asked(item: TransferItem, result: TransferResult) -> NewPublishItem:
    if result.error is not None:
        raise SystemExit(str(result.error))
    return NewPublishItem(
        path_b64=to_b64(item.path),
        version_uid=item.version_uid,
        number=1,
        size=result.size,
        checksums=tuple(result.checksums),
        staged_b64=to_b64(item.target),
    )


def ours(way: Way, source: Path, place: Path) -> float:
    """Return how long we take."""
    experiment = place / "ours"
    for name in (STAGING, "data"):
        (experiment / name).mkdir(parents=True)
    transfer, reader = way.ours(place), Reader()
    began = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        work = [pool.submit(deliver, transfer, way.url(experiment), experiment, b, reader) for b in batches(source)]
        for one in work:
            one.result()
    took = time.perf_counter() - began
    reader.close()
    shutil.rmtree(experiment)
    return took


def theirs(way: Way, place: Path) -> float:
    """Return how long the program takes, with md5sum after it."""
    target = place / "theirs"
    target.mkdir()
    began = time.perf_counter()
    subprocess.run(way.theirs(target), check=True, env={**os.environ, **way.env}, capture_output=True)
    listed = subprocess.run(["find", str(target), "-type", "f", "-print0"], check=True, capture_output=True).stdout
    subprocess.run(["xargs", "-0", "-n", "64", "-P", "2", "md5sum"], check=True, input=listed, capture_output=True)
    took = time.perf_counter() - began
    shutil.rmtree(target)
    return took


@contextmanager
def ways(source: Path, place: Path) -> Iterator[list[Way]]:
    """Start the servers, and give what is compared."""
    with ExitStack() as stack:
        ssh, daemon = stack.enter_context(sshd()), stack.enter_context(rsync_daemon(place))
        ca_place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="beamkeeper-ca-")))
        ca_place.chmod(0o755)
        authority = Authority(ca_place)
        proxy = authority.proxy(USER)
        grid = stack.enter_context(gsi_gridftp(authority, common_name=USER, acts_as=account()))
        shell = f"ssh -p {ssh.port} -i {ssh.key} -o UserKnownHostsFile={ssh.known_hosts} -o BatchMode=yes"
        copy = ["globus-url-copy", "-cd", "-r", "-cc", "4", f"file://{source}/"]
        yield [
            Way(
                "rsync over ssh",
                lambda _: RsyncTransfer(RsyncOptions(key_file=ssh.key, known_hosts=ssh.known_hosts)),
                ssh.url,
                lambda target: ["rsync", "-a", "-e", shell, f"{source}/", f"{account()}@127.0.0.1:{target}/"],
                {},
            ),
            Way(
                "rsync daemon",
                lambda _: RsyncTransfer(RsyncOptions(password_file=daemon.password_file)),
                daemon.url,
                lambda target: ["rsync", "-a", f"{source}/", f"{daemon.url(target)}/"],
                {"RSYNC_PASSWORD": RSYNC_PASSWORD},
            ),
            Way(
                "GridFTP",
                lambda _: GridFTPTransfer(GridFTPOptions(proxy_file=proxy, ca_dir=authority.trusted)),
                grid.url,
                lambda target: [*copy, f"{grid.url(target)}/"],
                {"X509_USER_PROXY": str(proxy), "X509_CERT_DIR": str(authority.trusted)},
            ),
        ]


def objects(source: Path, rounds: int) -> Row:
    """Return the row of S3: sending alone, for there is nothing to publish to without a service."""
    with s3() as server:

        def us(place: str) -> float:
            transfer = RcloneTransfer(RcloneTransferOptions(config=server.config))
            began = time.perf_counter()
            for items in batches(source):
                failed = [r.error for r in transfer.send(items, f"{server.url(place)}/{STAGING}/b", never) if r.error]
                if failed:
                    raise SystemExit(str(failed[0]))
            took = time.perf_counter() - began
            transfer.close()
            return took

        def them(place: str) -> float:
            argv = [find_program("rclone"), "copy", "--transfers", "4", str(source), f"far:beamline/{place}"]
            env, began = {**os.environ, "RCLONE_CONFIG": str(server.config)}, time.perf_counter()
            subprocess.run(argv, check=True, env=env, capture_output=True)
            return time.perf_counter() - began

        took = [(us(f"ours-{number}"), them(f"theirs-{number}")) for number in range(rounds)]
        return compared("S3, sending alone / rclone copy", took, most=None)


def compared(name: str, took: Sequence[tuple[float, float]], most: float | None = LIMIT) -> Row:
    """Return the row of one comparison, by the medians: a single pair differs from the next by a third."""
    us, them = (median(one[side] for one in took) for side in (0, 1))
    shown = ", ".join(f"{ours:.2f}/{bare:.2f}" for ours, bare in took)
    return Row(name, us / them, "x", most, note=f"ours {us:.2f} s, bare {them:.2f} s (of {shown})")


def measured(files: int, large: int, rounds: int) -> Iterator[Row]:
    """Measure every transfer, ours and theirs by turns."""
    with tempfile.TemporaryDirectory(prefix="beamkeeper-bench-") as made:
        source, place = Path(made) / "source", Path(made) / "far"
        source.mkdir()
        place.mkdir()
        source_tree(source, files, large)
        with ways(source, place) as all_ways:
            for way in all_ways:
                took = [(ours(way, source, place), theirs(way, place)) for _ in range(rounds)]
                yield compared(f"{way.name} / the bare program", took)
        yield objects(source, rounds)
    yield transfer_tar.compare(files, large)


def main() -> int:
    """Measure, print a line for each row, and write where that is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000, help="small files of 100 kB")
    parser.add_argument("--large", type=int, default=200_000_000, help="bytes of each of two large files")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the medians are compared")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the results into this page")
    options = parser.parse_args()
    facts, rows = machine("bench-transfer"), []
    size = options.files * 100_000 + 2 * options.large
    facts["sent"] = f"{options.files + 2} files, {size / 1e6:.0f} MB, on loopback"
    for row in measured(options.files, options.large, options.rounds):
        rows.append(row)
        print(row.line(), flush=True)
    if options.write:
        write_part(options.write, "transfers", [TEXT, *table(rows, facts)])
    return status(rows)


if __name__ == "__main__":
    raise SystemExit(main())
