"""The language model: any causal LM of transformers, with its cache as a state; how turns are written for it, and how
the calls that it writes are read; how probable it finds the words of a text.

Not here: token layouts, or how the next token is chosen (``decoding``).
"""
