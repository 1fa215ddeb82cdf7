"""F01 to F23, once each: what goes wrong while files arrive harms none of them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from faults import arrival
from faults.lab import Lab
from faults.registry import Fault, cases, may_play, play


@pytest.mark.parametrize("fault", cases(arrival.__name__))
def test_a_fault_while_files_arrive_harms_none(
    fault: Fault, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    if not may_play(fault):
        pytest.skip(f"{fault.id} needs root: {fault.title}")
    outcome = play(lab, fault)
    assert outcome.findings == []
    if outcome.refused:
        record_property("cannot be injected here", outcome.refused)
        sys.stdout.write(f"{fault.id} cannot be injected here: {outcome.refused}\n")
