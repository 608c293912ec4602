"""The training loop: launcher, batches, optimiser, averaged weights, saves, scalars.

Not here: anything that is true of one stage only.
"""
