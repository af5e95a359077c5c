"""Figures from arrays, and the page that holds them. Nothing here reads a run."""
