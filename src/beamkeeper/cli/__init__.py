"""The command line `dm`: a client, nothing else."""
