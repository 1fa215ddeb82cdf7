"""The order of the stages of a workflow: one after another by their ids, or as their needs say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.workflows.model import Definition

_NUMBER = re.compile(r"\d+")


def graph(definition: Definition) -> dict[str, tuple[str, ...]]:
    """Return what each stage needs, in an order in which each stands behind its needs.

    Without any `needs`, each stage needs the one before it in the text order of their ids, as in the original.
    """
    stages = definition.stages
    if all(stage.needs is None for stage in stages.values()):
        ids = sorted(stages)
        return {id_: tuple(ids[place - 1 : place]) for place, id_ in enumerate(ids)}
    needs = {id_: tuple(dict.fromkeys(stages[id_].needs or ())) for id_ in sorted(stages)}
    for id_, needed in needs.items():
        unknown = [other for other in needed if other not in stages]
        if unknown:
            raise InvalidError(f'stage "{id_}" needs "{unknown[0]}": no stage has this id')
    try:
        return {id_: needs[id_] for id_ in TopologicalSorter(needs).static_order()}
    except CycleError as error:
        ring = " needs ".join(f'"{id_}"' for id_ in reversed(error.args[1]))
        raise InvalidError(f"the stages run in a circle: {ring}") from error


def before(needs: Mapping[str, tuple[str, ...]]) -> dict[str, frozenset[str]]:
    """Return all stages that have ended when each begins; the needs are in the order that `graph` gives."""
    found: dict[str, frozenset[str]] = {}
    for id_, needed in needs.items():
        found[id_] = frozenset(needed).union(*(found[other] for other in needed))
    return found


def order_surprise(definition: Definition) -> tuple[str, str] | None:
    """Return two stages that run in text order where their numbers say otherwise, such as `10-` before `2-`."""
    if any(stage.needs is not None for stage in definition.stages.values()):
        return None
    ids = sorted(definition.stages)
    for first, second in pairwise(ids):
        numbers = [_NUMBER.match(id_) for id_ in (first, second)]
        if numbers[0] and numbers[1] and int(numbers[0][0]) > int(numbers[1][0]):
            return first, second
    return None
