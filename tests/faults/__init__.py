"""The campaign of faults: what may go wrong, one by one, and the invariants that have to hold all the same."""
