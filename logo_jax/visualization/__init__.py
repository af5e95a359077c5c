"""Figures from arrays and of runs, image logging, and the HTML page of figures."""
