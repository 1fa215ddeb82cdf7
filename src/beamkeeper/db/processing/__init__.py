"""Jobs, their stages and attempts: tables and queries."""

from beamkeeper.db.processing.engine import EngineJobs as EngineJobs
from beamkeeper.db.processing.queries import Jobs as Jobs

__all__ = ["EngineJobs", "Jobs"]
