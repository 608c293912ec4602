"""Data: text to speech to units to shards, for training and for evaluation.

Here: what makes or reads data sets. Not here: batches and augmentation (``training``), scenes and benchmarks
(``inference/evaluation``).
"""

if "." not in __name__:
    raise ImportError(f"import duologue.{__name__}, not {__name__}: this folder is a part of the package duologue")
