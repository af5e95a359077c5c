"""Devices and processes: the mesh, collectives, and start-up on several hosts."""
