"""Workflows that a beamline can use as they are: their definitions, and the programs that their stages run."""
