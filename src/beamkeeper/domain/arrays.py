"""Arrays in stored files: which file is meant, what is in it, and what is asked of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints

from beamkeeper.domain.names import ChecksumText, Input, Metadata, Model, WireInt, WithPath
from beamkeeper.domain.slices import MAX_TEXT

STATE_HEADER = "Beamkeeper-File-State"
NODE_LIMIT = 10_000
"""The most names in one answer."""

NodeName = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$")]


class NodeKind(StrEnum):
    """What stands at a name in a file."""

    GROUP = "group"
    DATASET = "dataset"
    EXTERNAL = "external"
    """A link into another file, which is not followed here: ask for that file."""
    BROKEN = "broken"
    """A link that leads nowhere, or in a circle."""
    OTHER = "other"


class FileChoice(Input, WithPath):
    """Which stored file is meant, and in which state."""

    version: int | None = Field(default=None, ge=1, le=2**31 - 1, description="An older version; else the newest.")
    state: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,16}(-[0-9a-f]{1,16}){2}$")] | None = Field(
        default=None, description="As an answer before told it: a file that is another by now is a conflict."
    )
    checksum: ChecksumText | None = Field(
        default=None, description="As catalogued: a copy in another area that has it is read where the own one fails."
    )
    name: NodeName = Field(default="/", description="The name of a group or dataset in the file.")


class NodeQuery(FileChoice):
    """What is at a name in a file?"""


class TreeQuery(FileChoice):
    """What is at and below a name in a file?"""

    limit: int = Field(default=1000, ge=1, le=NODE_LIMIT)


class ValuesQuery(FileChoice):
    """Which values of a dataset are wanted?"""

    select: Annotated[str, StringConstraints(max_length=MAX_TEXT)] = Field(
        default="", description="Such as `10:20, ::2, 5`; all where it is empty."
    )


class Member(Model):
    """A name in a group."""

    name: str
    kind: NodeKind


class Node(Model):
    """A group or dataset, or what else stands at a name."""

    name: str
    kind: NodeKind
    shape: tuple[WireInt, ...] | None = Field(default=None, description="Of a dataset; null where it has none.")
    dtype: str = Field(default="", description="The type of the elements, for people.")
    descr: JsonValue = Field(default=None, description="The same as numpy writes it into the header of .npy files.")
    is_text: bool = Field(default=False, description="The elements are texts of different lengths, sent as UTF-8.")
    chunks: tuple[WireInt, ...] | None = None
    filters: tuple[str, ...] = Field(default=(), description="How the chunks are compressed.")
    attrs: Metadata = Field(default_factory=dict)
    members: tuple[Member, ...] = ()
    is_cut: bool = Field(default=False, description="There are more members than are told.")
    target_file: str = Field(default="", description="Of a link into another file: that file, as the link names it.")
    target_name: str = Field(default="", description="Of a link into another file: the name there.")


class FileNode(Model):
    """What stands at a name in a file, and the state of the file."""

    format: str
    state: str
    size: WireInt
    node: Node


class FileTree(Model):
    """What stands at a name in a file and below it, and the state of the file."""

    format: str
    state: str
    size: WireInt
    nodes: tuple[Node, ...]
    is_cut: bool = Field(default=False, description="There is more than is told.")
