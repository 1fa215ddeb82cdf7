"""Tests of the services over HTTP."""
