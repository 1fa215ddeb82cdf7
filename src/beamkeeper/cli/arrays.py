"""`dm file tree`: what is inside a stored file, without fetching it."""

from __future__ import annotations

import click

from beamkeeper.cli import common, output
from beamkeeper.cli.files import EXPERIMENT, WHICH, file_meant
from beamkeeper.domain.arrays import NODE_LIMIT, Node, NodeKind


@click.command()
@WHICH
@click.argument("name", default="/")
@EXPERIMENT
@click.option("--version", type=click.IntRange(min=1), help="An older version; else the newest.")
@click.option("--attributes", is_flag=True, help="Show the attributes of NAME too.")
@click.option(
    "--limit", type=click.IntRange(1, NODE_LIMIT), default=1000, show_default=True, help="At most so many lines."
)
def tree(which: str, name: str, *, experiment: str | None, version: int | None, attributes: bool, limit: int) -> None:
    """Show the groups and datasets of an HDF5 or TIFF file, at and below NAME, as it lies in the storage."""
    client = common.client()
    opened = client.files.open(file_meant(client, which, experiment), version=version)
    name = f"/{name.strip('/')}"
    found = opened.tree(name, limit=limit)
    if output.is_json():
        output.data(found)
        return
    output.rows(found.nodes, {"name": "name", "is": _kind, "shape": _shape, "type": "dtype", "stored": _stored})
    if found.is_cut:
        output.note(f"there are more than these {limit}: --limit shows more, a name after the file what is below it")
    if attributes:
        output.pairs(sorted(opened.at(name).attrs.items()), title="attributes")


def _kind(node: Node) -> str:
    if node.kind is NodeKind.EXTERNAL:
        return f"link to {node.target_name} of {node.target_file}"
    return f"link to {node.target_name}" if node.target_name else str(node.kind)


def _shape(node: Node) -> str:
    return " x ".join(map(str, node.shape)) if node.shape else ""


def _stored(node: Node) -> str:
    chunks = f"in chunks of {' x '.join(map(str, node.chunks))}" if node.chunks else ""
    return ", ".join(filter(None, [chunks, *node.filters]))
