"""``duologue train``: one loop, one file a stage, on accelerate.

Here: what learns. Not here: networks (``model``) and data sets (``data_prep``).
"""

if "." not in __name__:
    raise ImportError(f"import duologue.{__name__}, not {__name__}: this folder is a part of the package duologue")
