"""Real servers, fakes and conformance suites for tests; never imported at run time."""
