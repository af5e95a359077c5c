"""Sweeps: many runs, described in one file and compared in one table."""
