"""Is a file finished? Evidence from the file itself, and the policy that weighs it (DESIGN 4)."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
from dataclasses import dataclass
from enum import StrEnum

from beamkeeper.domain.acquisition import Finished, Kind

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HDF5_OPEN_FLAGS = 0x01 | 0x04
"""Superblock versions 2 and 3: opened for writing, opened for single writer and many readers."""

PATIENCE = 5
"""A file that its format calls unfinished, with no known writer, is taken as it is after this many quiet periods."""

NETWORK_FILE_SYSTEMS = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "gpfs",
        "lustre",
        "beegfs",
        "ceph",
        "afs",
        "9p",
        "glusterfs",
        "gfs2",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "panfs",
        "wekafs",
        "virtiofs",
        "vboxsf",
        "vmhgfs",
        "prl_fs",
        "acfs",
    ]
)
"""File systems that others may write to without this kernel's hearing of it; so may those in user space (fuse.*)."""

NETWORK_QUIET_S = 10.0
"""Attributes are cached by clients of network file systems: a shorter quiet would see a growing file as stable."""


class Writer(StrEnum):
    """Whether some process of this host has a file open for writing."""

    NONE = "none"
    OPEN = "open"
    UNKNOWN = "unknown"


class Format(StrEnum):
    """What a file's own format says of its being whole."""

    WHOLE = "whole"
    """A closed HDF5 file whose stored end is its size: the writer's word."""
    PLAUSIBLE = "plausible"
    OPEN = "open"
    """HDF5 flagged open for writing."""
    SHORT = "short"
    """It points beyond its own end, or has more than it accounts for."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When a file counts as finished in one DAQ or upload."""

    finished: Finished
    quiet_s: float
    is_network: bool
    kind: Kind
    is_exported: bool = False
    """Other machines write into the directory through this one, which sees no writer of theirs."""
    sentinel: str = ""
    is_watched: bool = True
    """Word of changes comes from the kernel, closing included."""

    @property
    def is_remote(self) -> bool:
        """Whether writers may be on other machines: then nobody can say that there is none."""
        return self.is_network or self.is_exported

    @property
    def sentence(self) -> str:
        """The policy and its reason, for people."""
        at_once = ["it is announced", "renamed from a temporary name", "or is an HDF5 file that was closed properly"]
        if self.sentinel:
            at_once.insert(1, f'named by a sentinel "{self.sentinel}"')
        rest = f"else when no writer is known and it was quiet for {self.quiet_s:g} s ({self._where})"
        if self.finished is Finished.CLOSED and self.is_watched:
            return "a file is finished when its writer closes it, as was asked for (--finished closed)"
        if self.finished is Finished.CLOSED:
            rest += "; that it is closed, as was asked for, cannot be seen here"
        return f"a file is finished at once when {', '.join(at_once)}; {rest}"

    @property
    def _where(self) -> str:
        if self.is_network:
            return "the directory is on the network, where no writer can be seen"
        if self.is_exported:
            return "the directory is exported over NFS, and writers on other machines cannot be seen"
        return "a local disk"


def make_policy(
    finished: Finished,
    quiet_s: float | None,
    default_quiet_s: float,
    *,
    file_system: str,
    kind: Kind,
    is_exported: bool = False,
    is_polled: bool = False,
    sentinel: str | None = None,
) -> Policy:
    """Return the policy for a directory on a file system of this type."""
    is_network = file_system in NETWORK_FILE_SYSTEMS or file_system.startswith("fuse.")
    if quiet_s is None:
        quiet_s = max(default_quiet_s, NETWORK_QUIET_S) if is_network or is_exported else default_quiet_s
    is_watched = kind is Kind.DAQ and not is_network and not is_polled
    return Policy(finished, quiet_s, is_network, kind, is_exported, sentinel or "", is_watched)


@dataclass(frozen=True, slots=True)
class Hints:
    """What was seen happen to a file since it last changed."""

    is_renamed_in: bool = False
    is_closed: bool = False
    is_announced: bool = False
    """Its writer says that it is finished."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a file is finished; if not, when to look again (seconds), and what it waits for."""

    is_finished: bool
    look_again_s: float = 0.0
    is_growing: bool = False
    is_strong: bool = False
    """The writer's word, not only silence."""
    is_unclean: bool = False
    """It is taken though its own format calls it unfinished: nobody will finish it."""
    why: str = ""


def weigh(policy: Policy, hints: Hints, *, quiet_for_s: float, writer: Writer, form: Format) -> Verdict:
    """Decide from evidence. Pure: the same evidence gives the same verdict."""
    left = policy.quiet_s - quiet_for_s
    if writer is Writer.OPEN:
        return Verdict(False, max(policy.quiet_s, 0.5), is_growing=True, why="a process has it open for writing")
    if hints.is_announced or (policy.finished is Finished.CLOSED and hints.is_closed):
        return Verdict(True, is_strong=True)
    if hints.is_renamed_in or (form is Format.WHOLE and (writer is Writer.NONE or hints.is_closed)):
        return Verdict(True, is_strong=True)
    if form in (Format.OPEN, Format.SHORT):
        patience = max(policy.quiet_s, 0.2) * PATIENCE
        if quiet_for_s < patience or (form is Format.OPEN and writer is Writer.UNKNOWN):
            why = (
                "HDF5 says that it is open for writing"
                if form is Format.OPEN
                else "its format says that more is to come"
            )
            return Verdict(False, max(policy.quiet_s, 0.5), is_growing=True, why=why)
        return Verdict(True, is_unclean=True, why="its format calls it unfinished, and no writer is known any more")
    if left > 0 and not (policy.kind is Kind.UPLOAD and writer is Writer.NONE and not policy.is_network):
        return Verdict(False, left, why=f"quiet for {policy.quiet_s:g} s is asked for")
    return Verdict(True)


def writer_of(descriptor: int) -> Writer:
    """Ask the kernel whether a local process has an open file open for writing, by asking for a read lease.

    The lease is given back at once, so that the next writer is not held up. It is granted to the file's owner
    (or CAP_LEASE) only, and not on network file systems: both answer 'unknown', never 'none'.
    """
    try:
        # A writer who comes in this instant makes the kernel send a signal: let it be one that is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return Writer.OPEN if error.errno in (errno.EAGAIN, errno.EBUSY) else Writer.UNKNOWN
    return Writer.NONE


def format_of(descriptor: int, size: int) -> Format:
    """Return what a file's own format says; reads a few hundred bytes and takes no lock."""
    head = os.pread(descriptor, 96, 0)
    if head.startswith(HDF5_MAGIC):
        return _hdf5(head, size)
    if head[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(descriptor, head, size)
    return Format.PLAUSIBLE


def _hdf5(head: bytes, size: int) -> Format:
    """Read the superblock (HDF5 file format specification 3.0, section II.A), offsets of 8 bytes assumed."""
    version = head[8] if len(head) > 8 else 255
    try:
        if version in (2, 3):
            end = struct.unpack_from("<Q", head, 28)[0]
            if head[11] & HDF5_OPEN_FLAGS:
                return Format.OPEN
            return Format.WHOLE if end == size else Format.SHORT
        # Versions 0 and 1 have no flag: a killed writer shows only by the stored end, so this is no writer's word.
        end = struct.unpack_from("<Q", head, 40 if version == 0 else 44)[0]
    except (struct.error, IndexError):
        return Format.SHORT
    return Format.PLAUSIBLE if end == size else Format.SHORT


def _tiff(descriptor: int, head: bytes, size: int) -> Format:
    """Check that the first directory, and what its last entry can reach, lie inside of the file (TIFF 6.0)."""
    order = "<" if head[:2] == b"II" else ">"
    try:
        offset = struct.unpack_from(order + "I", head, 4)[0]
        count = struct.unpack_from(order + "H", os.pread(descriptor, 2, offset))[0]
    except struct.error:
        return Format.SHORT
    entries_end = offset + 2 + 12 * count
    if offset < 8 or entries_end > size:
        return Format.SHORT
    entries = os.pread(descriptor, 12 * count, offset + 2)
    strips: dict[int, tuple[int, int, int]] = {}
    for i in range(count):
        tag, kind, number, value = struct.unpack_from(order + "HHII", entries, 12 * i)
        strips[tag] = (kind, number, value)
    begin, length = strips.get(273), strips.get(279)
    if begin and length and begin[1] == length[1] == 1 and begin[0] == length[0] == 4 and begin[2] + length[2] > size:
        return Format.SHORT
    return Format.PLAUSIBLE
