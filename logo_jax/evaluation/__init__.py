"""Evaluation of frozen features: kNN, linear classifiers, SVMs and their metrics.

The modules know an encoder only as a function from images to features.
"""
