"""What things are and which steps they may take: pure values, no I/O, no clock, no settings."""
