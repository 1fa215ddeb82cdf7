"""What is done with files that were ticked in a list: one archive of them, a dataset, a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from starlette.responses import Response

from beamkeeper.client import Client
from beamkeeper.domain.datasets import NewDataset
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.files import File
from beamkeeper.portal.experiments import Shown, shown_of
from beamkeeper.portal.files import meant_by, uid_of
from beamkeeper.portal.routes import post
from beamkeeper.portal.visits import Visit

MOST = 1000
MOST_IN_ADDRESS = 200
"""So many files may be named in the address of the form that runs a workflow on them."""


@dataclass(frozen=True)
class Chosen:
    """Files of one experiment, at its station's catalogue."""

    files: Sequence[File]
    client: Client
    of: Shown


def chosen(visit: Visit) -> Chosen:
    """Return the files that were ticked; they are of one experiment."""
    uids = [uid_of(text) for text in dict.fromkeys(visit.form.all("file"))]
    if not uids:
        raise InvalidError("no file is ticked: tick some in the list, and try again")
    if len(uids) > MOST:
        raise InvalidError(f"these are more than {MOST} files: name them by conditions instead")
    first, client = meant_by(visit, uids[0])
    files = [first]
    for uid in uids[1:]:
        try:
            files.append(client.files.get(uid))
        except NotFoundError:
            files.append(meant_by(visit, uid)[0])
    if len({file.experiment_uid for file in files}) > 1:
        raise InvalidError("the ticked files are of several experiments: tick files of one")
    return Chosen(files, client, shown_of(visit, first.experiment_uid))


def archive(visit: Visit) -> Response:
    """Freeze the ticked files as one archive, and go to its page."""
    these = chosen(visit)
    experiment = these.of.experiment
    made = these.client.downloads.freeze(experiment.uid, experiment.name, iter(these.files))
    return visit.go(f"{these.of.path}/archives/{made.uid}")


def dataset(visit: Visit) -> Response:
    """Add the ticked files to a dataset, which is made where there is none of its name; and show what is in it."""
    these, name = chosen(visit), visit.form.get("dataset", "")
    if not name:
        raise InvalidError("say to which dataset: type its name beside the button; a new name makes a new one")
    datasets = these.client.datasets
    try:
        found = datasets.named(these.of.experiment.uid, name)
    except NotFoundError:
        found = datasets.create(NewDataset(experiment_uid=these.of.experiment.uid, name=name))
    datasets.add_files(found.uid, [file.uid for file in these.files])
    return visit.go(f"{these.of.path}/find", q=f'dataset = "{found.name}"')


def workflow(visit: Visit) -> Response:
    """Go on to the choice of a workflow for the ticked files."""
    these = chosen(visit)
    if len(these.files) > MOST_IN_ADDRESS:
        raise InvalidError(f"these are more than {MOST_IN_ADDRESS} files: name them by conditions in its form")
    return visit.go(f"/workflows?on={quote(','.join(str(file.uid) for file in these.files))}")


ROUTES = (
    post("/files/chosen/archive", archive),
    post("/files/chosen/dataset", dataset),
    post("/files/chosen/workflow", workflow),
)
