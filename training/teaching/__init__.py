"""Teachers of a student: what they are loaded from, what they say together, where that is kept, and the task they join.

Recipe ``distil`` is made of this. Not here: the divergence itself (``losses/distillation.py``).
"""
