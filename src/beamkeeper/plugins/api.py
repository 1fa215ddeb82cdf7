"""The plugin Protocols: what a transfer and a file processor get, give and may raise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, JsonValue

from beamkeeper.domain.acquisition import Acquisition
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileKind, NewFile, RegisteredFiles, SourceIdentity
from beamkeeper.domain.names import Checksum, RelPath, Uid

TRANSFERS = "beamkeeper.transfers"
PROCESSORS = "beamkeeper.processors"


class Options(BaseModel):
    """A plugin's own settings; derive from this. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Ahead:
    """What was staged of a file while it was still written: how many bytes, and the BLAKE3 digests of whole chunks."""

    size: int = 0
    chunks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TransferItem:
    """One file to be moved.

    `source` is an absolute path; `identity` is the state in which the source was found finished: bytes of
    another state must not be delivered (I6). `staged` is the name that it is to have below the staging directory, where
    that is not its path: what is not mounted gets names that every protocol can say.
    """

    version_uid: Uid
    source: bytes
    path: RelPath
    identity: SourceIdentity
    staged: RelPath | None = None
    ahead: Ahead | None = None
    """What stands at its target from while it was written: a beginning for `send`, that may be wrong anywhere."""

    @property
    def target(self) -> RelPath:
        """Its name below the staging directory."""
        return self.staged or self.path


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What became of one item: staged with its checksums, or an error with its side.

    `error` is a SourceError (changed, unreadable, gone: `code` says which) or a DestinationError.
    """

    version_uid: Uid
    size: int = 0
    checksums: Sequence[Checksum] = ()
    chunks: Sequence[str] = ()
    error: Exception | None = None


class Stop(Protocol):
    """Tells a transfer whether to end, and hears from it that it lives.

    To be called before each piece of a file, from any thread: a transfer that neither calls it nor gives a result
    for half a minute counts as hanging. `moved` is how many bytes were read from the source since the last call; it
    returns when more may be read (limits, by hour), so never while something must not wait.
    """

    def __call__(self, moved: int = 0, /) -> bool:
        """Take a sign of life; True: begin nothing more, and end."""
        ...


@runtime_checkable
class Transfer(Protocol):
    """Moves the bytes of a batch into a staging directory.

    Called from several threads at once, with different staging directories. May be called again with the
    same directory after a crash: what is there from before is replaced. A fault of one file is its result's
    error; a fault of the destination as a whole is raised as DestinationError, with a `code`: one of
    `domain.storage.TROUBLES`.
    """

    def send(self, items: Sequence[TransferItem], staging: str, stop: Stop) -> Iterator[TransferResult]:
        """Move each item to `staging`/target (a URL of the plugin's scheme); one result an item, in any order."""
        ...


@runtime_checkable
class Discarding(Protocol):
    """A transfer that can remove what it has staged; for others the storage service does."""

    def discard(self, staging: str) -> None:
        """Remove a staging directory and all in it; nothing there is no error."""
        ...


@runtime_checkable
class Fetching(Protocol):
    """A transfer that can bring back what lies where it sends to: for stages that run where our storage is not seen."""

    def fetch(self, place: str, into: Path, stop: Stop) -> None:
        """Bring the files that lie in a directory there into one that is here, over what it has; none of what is below.

        DestinationError where it cannot, ProgramStoppedError where it is told to stop. Whether the right bytes have
        arrived is for the caller to see.
        """
        ...

    def remove(self, place: str) -> None:
        """Remove a directory there and all in it; nothing there is no error."""
        ...


@runtime_checkable
class Growing(Protocol):
    """A transfer that can stage a file while it is still written, so that little is left to do when it is finished."""

    def stage_ahead(self, item: TransferItem, staging: str, stop: Stop) -> Ahead:
        """Bring what a source has beyond `item.ahead` to `staging`/target, up to `item.identity.size` or so.

        Called again and again, by one thread at a time. Its writer may change what was brought already: `send`, called
        with the last answer as the item's `ahead` once the file is finished, brings everything that differs. Where it
        is told to stop, it answers with what has arrived.
        """
        ...


class TransferFactory(Protocol):
    """What the entry point of a transfer names: a class with an options model, built once a process."""

    options: ClassVar[type[Options]]
    summary: ClassVar[str]

    def __call__(self, options: Options) -> Transfer:
        """Build the transfer from its validated options."""
        ...


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is stored, on its way through the chain of processors."""

    new: NewFile
    local_path: Path | None
    """Where this process can read the very bytes that were stored; None where it cannot."""
    source_path: bytes

    @property
    def kind(self) -> FileKind:
        """Whether it is a file or a link."""
        return self.new.kind


@dataclass(frozen=True, slots=True)
class Processed:
    """What a processor has done for one file: metadata to add, or why it failed."""

    version_uid: Uid
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    error: str = ""
    picture: Mapping[str, JsonValue] | None = None
    """What a processor that is `Picturing` is to be told, later, to make the file's small picture; None for none."""


class Catalogue(Protocol):
    """The part of the client that processors use to register files."""

    def register(self, files: Sequence[NewFile]) -> RegisteredFiles:
        """Register stored versions; idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class ProcessorContext:
    """What a processor may use."""

    acquisition: Acquisition
    experiment: Experiment
    catalogue: Catalogue
    stop: Callable[[], bool]


@runtime_checkable
class FileProcessor(Protocol):
    """One link of the chain that every stored file goes through.

    Called with a batch, from several threads, and again for the same files after a crash: it must be
    idempotent by `version_uid`. Where it raises for a batch, it gets each of its files alone. A file for which it
    raises, or answers with an error, is tried again with a back-off, and put aside in the end; UnavailableError
    says that the whole batch is to wait, and counts against no file.
    """

    def process(self, files: Sequence[StoredFile], context: ProcessorContext) -> Sequence[Processed]:
        """Handle the files; one answer each. Metadata is merged and seen by the processors after this one."""
        ...


@dataclass(frozen=True, slots=True)
class Picture:
    """The small picture of a file's first frame, as PNG, and what the numbers of that frame are."""

    numbers: Mapping[str, JsonValue]
    png: bytes


class PictureError(Exception):
    """Why a file has no small picture; it is added to the file's metadata."""


@runtime_checkable
class Picturing(Protocol):
    """A processor that makes small pictures, when files are available: nothing waits for them.

    Called by one thread, for one file after the other, while there is time: maybe long after `process`, by another
    process of the service, and again after a crash.
    """

    def picture(self, path: Path, told: Mapping[str, JsonValue]) -> Picture | None:
        """Return the picture of a file that `process` wanted one of, or None; raise PictureError where it fails."""
        ...


class ProcessorFactory(Protocol):
    """What the entry point of a processor names: a class with an options model, built once a process."""

    options: ClassVar[type[Options]]
    summary: ClassVar[str]

    def __call__(self, options: Options) -> FileProcessor:
        """Build the processor from its validated options."""
        ...
