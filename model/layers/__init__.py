"""Layers that several parts are made of: convolutions, attention with its cache, streamed exactly or in windows.

Here: layers without a meaning of their own. Not here: a whole encoder, decoder or codec.
"""
