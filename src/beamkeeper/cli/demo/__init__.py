"""`dm demo`: a beamline on this machine, a simulated detector, and a check of every file on its own."""
