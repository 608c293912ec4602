"""From states of the language model to samples: the unit decoder, and vocoders for its units.

Not here: codecs (``codec``), although one may serve as the vocoder.
"""
