"""Base weights: parts of a model that others trained, named in its config.json instead of stored; fetched on first use.

Here: how they are declared, where their files come from, the cache of imported parts. Not here: how foreign files are
read (``checkpoints/importers``).
"""
