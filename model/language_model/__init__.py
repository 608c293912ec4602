"""The language model: any causal LM of transformers, with its cache as a state.

Not here: prompts, token layouts, or how the next token is chosen (``decoding``).
"""
