"""Data: text to speech to units to shards, for training and for evaluation.

Here: what makes or reads data sets. Not here: batches and augmentation (``training``), scenes and benchmarks
(``inference/evaluation``).
"""
