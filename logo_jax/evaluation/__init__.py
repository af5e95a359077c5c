"""Frozen features to named numbers; knows encoders only as functions."""
