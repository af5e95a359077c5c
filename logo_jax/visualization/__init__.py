"""Figures of arrays and of runs, image logging, and HTML pages of figures."""
