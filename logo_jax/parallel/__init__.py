"""Devices and processes: the mesh, collectives, multi-host start-up."""
