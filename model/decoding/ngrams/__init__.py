"""N-gram language models: how probable the next word or token is, from counts.

Here: counting, smoothing, scoring, ARPA, interpolation, pruning; all of it in numpy. Not here: files and tokenizers,
which belong to the command ``duologue lm``.
"""
