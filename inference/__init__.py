"""Using a model: one question, a full-duplex session, a service, an evaluation.

Not here: anything that learns.
"""

if "." not in __name__:
    raise ImportError(f"import duologue.{__name__}, not {__name__}: this folder is a part of the package duologue")
