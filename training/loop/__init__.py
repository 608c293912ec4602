"""The training loop: launcher, batches, optimiser, averaged weights, weights of parts, saves, scalars.

Not here: anything that is true of one stage only.
"""
