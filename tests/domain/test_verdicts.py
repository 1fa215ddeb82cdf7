"""What several glances at directories come to: YES only where all of it is proven, and lately."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from beamkeeper.domain.wipes import NO_ANSWER, Reason, Wipe, WipeState, WipeTally, verdict_of

NOW = datetime(2026, 11, 27, 3, 12, tzinfo=UTC)
LEAST = timedelta(seconds=60)


def glance(*reasons: str, files: int = 3, state: WipeState = WipeState.PLANNED, age_s: float = 10) -> Wipe:
    at = NOW - timedelta(seconds=age_s)
    return Wipe(
        path_b64="YQ==",
        uid=UUID(int=1),
        agent="det1",
        state=state,
        is_safe=bool(files) and not reasons,
        min_age_hours=24,
        within_days=7,
        max_files=10,
        proven_files=files,
        not_proven=tuple(WipeTally(reason=reason, files=1, bytes=1) for reason in reasons),
        is_glance=True,
        planned_by="TEST",
        created_at=at,
        planned_at=at if state is WipeState.PLANNED else None,
        ended_at=at if state is WipeState.REFUSED else None,
    )


SAFE, EMPTY, YOUNG = glance(), glance(files=0), glance(Reason.TOO_YOUNG)
REFUSED, OLD = glance(files=0, state=WipeState.REFUSED), glance(age_s=300)


@pytest.mark.parametrize(
    ("glances", "is_safe", "reasons"),
    [
        ([], None, ()),
        ([None], None, ()),
        ([SAFE], True, ()),
        ([SAFE, EMPTY], True, ()),
        ([EMPTY], False, ()),
        ([SAFE, YOUNG], False, (Reason.TOO_YOUNG,)),
        ([SAFE, None], None, ()),
        ([YOUNG, None], False, (Reason.TOO_YOUNG,)),
        ([SAFE, REFUSED], None, (NO_ANSWER,)),
        ([YOUNG, REFUSED], False, (NO_ANSWER, Reason.TOO_YOUNG)),
        ([OLD], None, ()),
        ([SAFE, OLD], None, ()),
    ],
)
def test_only_what_is_proven_everywhere_and_lately_is_a_yes(
    glances: list[Wipe | None], is_safe: bool | None, reasons: tuple[str, ...]
) -> None:
    found = verdict_of(glances, NOW, LEAST)
    assert (found.is_safe, found.reasons) == (is_safe, reasons)
    assert found.proven_files == (3 if is_safe else 0)


def test_a_glance_that_took_long_is_believed_for_longer() -> None:
    slow = glance(age_s=300).model_copy(update={"planned_at": NOW - timedelta(seconds=290)})
    assert verdict_of([slow], NOW, LEAST).is_safe
