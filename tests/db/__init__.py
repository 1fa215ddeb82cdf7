"""Tests of the tables and queries."""
