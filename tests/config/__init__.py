"""Tests of option files."""
