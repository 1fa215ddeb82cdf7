"""The settings: one tree, from defaults, a file, the environment and flags; unknown keys are errors."""

from beamkeeper.config.load import RESERVED_ENVIRONMENT as RESERVED_ENVIRONMENT
from beamkeeper.config.load import Loaded as Loaded
from beamkeeper.config.load import load as load
from beamkeeper.config.show import Row as Row
from beamkeeper.config.show import example as example
from beamkeeper.config.show import mask_url as mask_url
from beamkeeper.config.show import rows as rows
from beamkeeper.config.tree import Settings as Settings
from beamkeeper.config.tree import default_data_dir as default_data_dir

__all__ = [
    "RESERVED_ENVIRONMENT",
    "Loaded",
    "Row",
    "Settings",
    "default_data_dir",
    "example",
    "load",
    "mask_url",
    "rows",
]
