"""Runs that are compared: what a sweep file says, and the table of what they reach."""
