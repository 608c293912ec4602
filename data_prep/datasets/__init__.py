"""What a data set is on disk, and how one is read: shards, recordings with a manifest, conversations, splits.

Not here: who makes them (``recipes``).
"""
