"""`dm file meta`: the metadata of a file, and how it came about."""

from __future__ import annotations

from beamkeeper.cli import meta
from beamkeeper.cli.files import file_meant

_META = meta.Commands(
    "a file's",
    "PATH|UID",
    meant=file_meant,
    changed=lambda client, file, patch: client.files.set_metadata(file.uid, patch),
    changes=lambda client, file: client.files.metadata_history(file.uid),
    note=""".

    KEY may be a path such as sample.name; VALUE is a number, true, false or text. KEY:=JSON sets any JSON. With --unit
    the values are numbers that have it: `dm file meta set scan.h5 energy=12.4 --unit keV`.
    """,
)
set_, get, history = _META.set(), _META.get(), _META.history()
