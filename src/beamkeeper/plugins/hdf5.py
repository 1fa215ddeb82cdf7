"""What HDF5 would open by itself: to tell the shape of some datasets, it looks into whatever files they name."""

from __future__ import annotations

import h5py

MAX_SOURCES = 10_000


def is_shape_elsewhere(dataset: h5py.Dataset) -> bool:
    """Whether asking for a dataset's shape opens other files: of a virtual one that grows with its sources it does."""
    if not dataset.is_virtual:
        return False
    plan = dataset.id.get_create_plist()
    count = plan.get_virtual_count()
    return count > MAX_SOURCES or any(_is_unlimited(plan.get_virtual_vspace(index)) for index in range(count))


def _is_unlimited(space: h5py.h5s.SpaceID) -> bool:
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return False
    _, _, counts, blocks = space.get_regular_hyperslab()
    return any(length >= 2**63 for length in (*counts, *blocks))
