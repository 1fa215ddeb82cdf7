"""Proposals and forms: what an experiment takes from them."""

from __future__ import annotations

from beamkeeper.db import StorageTransaction
from beamkeeper.domain.errors import NotFoundError, NotPermittedError
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.people import Proposal, ProposalKind, ProposalPage, ProposalQuery
from beamkeeper.domain.users import Action, Caller, reach


def page(tx: StorageTransaction, caller: Caller, query: ProposalQuery) -> ProposalPage:
    """Return proposals and forms, for those who make experiments of them."""
    reached = reach(caller, Action.EXPERIMENT_CREATE)
    if not (reached.is_all or reached.stations):
        raise NotPermittedError(
            f"{caller.username} manages no station: proposals are shown to those who make experiments of them"
        )
    return tx.proposals.page(query)


def filled(tx: StorageTransaction, new: NewExperiment) -> NewExperiment:
    """Return an experiment to be made with what its proposal and its form say and it does not.

    A site without a source of proposals writes into these fields what it likes.
    """
    if not (new.proposal or new.esaf) or not tx.proposals.is_any():
        return new
    papers = [
        _named(tx, kind, number)
        for kind, number in ((ProposalKind.GUP, new.proposal), (ProposalKind.ESAF, new.esaf))
        if number
    ]
    starts = [paper.starts_at for paper in papers if paper.starts_at is not None]
    ends = [paper.ends_at for paper in papers if paper.ends_at is not None]
    taken = {
        "title": new.title or next((paper.title for paper in papers if paper.title), ""),
        "starts_at": new.starts_at or min(starts, default=None),
        "ends_at": new.ends_at or max(ends, default=None),
        "pi": new.pi or tx.proposals.pi_of(papers),
    }
    return new.model_copy(update=taken)


def _named(tx: StorageTransaction, kind: ProposalKind, number: str) -> Proposal:
    found = tx.proposals.get(kind, number)
    if found is None:
        raise NotFoundError(f'there is no {kind} "{number}": `dm sync proposals` takes over new ones', number=number)
    return found
