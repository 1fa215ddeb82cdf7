"""A canary: a file of our own that comes and goes, and whose events prove that a watch is alive."""

from __future__ import annotations

import os
from contextlib import suppress
from uuid import UUID

from beamkeeper.domain.acquisition import CANARY_PREFIX

FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Canary:
    """The canary of one watched directory; only its own names are ever touched."""

    def __init__(self, root: bytes, uid: UUID) -> None:
        self.name = f"{CANARY_PREFIX}{uid}".encode()
        self._paths = [os.path.join(root, self.name + suffix) for suffix in (b"", b".2")]

    def send(self) -> bool:
        """Create, rename and remove the file; False where we may not, or the disk is full."""
        first, second = self._paths
        try:
            self.wipe()
            os.close(os.open(first, FLAGS, 0o600))
            os.rename(first, second)
            os.unlink(second)
        except OSError:
            with suppress(OSError):
                self.wipe()
            return False
        return True

    def wipe(self) -> None:
        """Remove what a killed process left behind."""
        for path in self._paths:
            with suppress(FileNotFoundError):
                os.unlink(path)
