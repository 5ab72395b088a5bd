"""Damaged bytes for every decoder, without end: `python -m tests.fuzz --help`."""
