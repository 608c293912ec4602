"""Speech recognisers that are no part of a model: they label recordings and judge replies; they never help to answer.

One file each. A recogniser takes 16 kHz and returns words.
"""
