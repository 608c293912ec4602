"""Using a model: one question, a full-duplex session, a service, an evaluation.

Not here: anything that learns.
"""
