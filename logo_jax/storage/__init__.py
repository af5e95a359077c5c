"""Paths of this machine and of buckets, and what a bucket needs instead of a disk."""
