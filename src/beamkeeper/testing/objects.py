"""A real S3 server: rclone's own, which keeps its buckets in a directory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beamkeeper.domain.errors import DestinationError
from beamkeeper.domain.names import RelPath
from beamkeeper.domain.storage import STAGING
from beamkeeper.plugins.rclone import find_program, key_of
from beamkeeper.testing.daemons import daemon, listens
from beamkeeper.testing.servers import ServerNotAvailableError, free_port

BUCKET, REMOTE = "beamline", "far"
KEY, SECRET = "AKIABEAMKEEPER", "a secret of the test"


@dataclass(frozen=True, slots=True)
class S3:
    """A running S3 server with one bucket."""

    port: int
    root: Path
    config: Path

    def url(self, prefix: str) -> str:
        """Return the address of what begins with a prefix, without the last slash."""
        return f"rclone://{REMOTE}/{BUCKET}/{prefix}"

    def read(self, prefix: str, path: RelPath) -> bytes | None:
        """Return the object of a path; None where there is none."""
        where = self.root / BUCKET / prefix / key_of(path)
        return where.read_bytes() if where.is_file() else None


@contextmanager
def s3(*flags: str) -> Iterator[S3]:
    """Run an S3 server while the block lasts, with further flags of rclone."""
    try:
        program = find_program("rclone")
    except DestinationError as error:
        raise ServerNotAvailableError(error.message) from error
    with tempfile.TemporaryDirectory(prefix="beamkeeper-s3-") as made:
        place, port = Path(made), free_port()
        (place / "buckets" / BUCKET).mkdir(parents=True)
        config = place / "rclone.conf"
        write_config(config, port)
        argv = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
        argv += [*flags, str(place / "buckets")]
        with daemon(argv, place / "log", lambda: listens(port), env={"RCLONE_CONFIG": ""}):
            yield S3(port, place / "buckets", config)


def write_config(path: Path, port: int, secret: str = SECRET) -> None:
    """Write a configuration of rclone with a remote for a server on this host."""
    lines = [
        *(f"[{REMOTE}]", "type = s3", "provider = Rclone", f"endpoint = http://127.0.0.1:{port}"),
        *(f"access_key_id = {KEY}", f"secret_access_key = {secret}", ""),
    ]
    path.touch(mode=0o600)
    path.write_text("\n".join(lines))


class ObjectPlace:
    """An experiment's prefix in a bucket, for the suite of conformance."""

    def __init__(self, server: S3, prefix: str) -> None:
        self._server = server
        self._prefix = prefix

    def url(self, batch: str) -> str:
        """Return the staging URL of a batch."""
        return f"{self._server.url(self._prefix)}/{STAGING}/{batch}"

    def read(self, batch: str, path: RelPath) -> bytes | None:
        """Return what is staged under a path; None where nothing is."""
        return self._server.read(f"{self._prefix}/{STAGING}/{batch}", path)
