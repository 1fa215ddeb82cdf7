"""Pictures of frames, of every kind of number that files hold."""

from __future__ import annotations

import numpy as np
import pytest

from beamkeeper.plugins.pictures import ColourMap, Scale, look, png


@pytest.mark.parametrize("kind", ["?", "u1", "i1", "u2", "i4", "u8", "f2", "f4", "f8"])
def test_a_frame_of_any_kind_of_number_becomes_a_picture(kind: str) -> None:
    frame = (np.arange(12).reshape(3, 4) % 2).astype(kind)
    range_ = look(frame)
    assert (range_.least, range_.most) == (0, 1)
    assert png(frame, range_.low, range_.high, Scale.LOG, ColourMap.GREY).startswith(b"\x89PNG")
