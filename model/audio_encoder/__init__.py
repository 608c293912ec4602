"""From samples to encoder frames: log-mel and the Whisper encoder, whole, in chunks, or through a window.

A further encoder is a further file here. Not here: what turns frames into embeddings (``adaptor``).
"""
