"""The settings that say what is proven before anything at the source is wiped."""

from __future__ import annotations

from pydantic import Field

from beamkeeper.config.values import LONGEST_HOURS, Number, Section, Whole


class Wipe(Section):
    """What has to be proven before a directory at the source may be wiped, and how much one run may delete."""

    min_age_hours: Number = Field(
        default=24.0, ge=0, le=LONGEST_HOURS, description="Files must be older than this many hours."
    )
    within_days: Number = Field(
        default=7.0,
        gt=0,
        le=3660,
        description="A copy that was read from its device within so many days is believed; others are read again.",
    )
    max_files: Whole = Field(default=100_000, ge=1, le=10**7, description="The most files that one run deletes.")
    heard_within_s: Number = Field(
        default=60.0, gt=0, le=86400, description="Nothing is wiped when the site was not heard of for this long."
    )
    patience_s: Number = Field(
        default=30.0, gt=0, le=3600, description="Seconds to wait for a storage or catalogue that does not answer."
    )
    glance_s: Number = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="Seconds after which the answer on the kiosk is found anew; later where that takes long.",
    )
