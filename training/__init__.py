"""``duologue train``: one loop, one file a stage, on accelerate.

Here: what learns. Not here: networks (``model``) and data sets (``data_prep``).
"""
