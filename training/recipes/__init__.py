"""One file a stage: what it starts from, which parameters learn, its data, its loss.

Discovered by name: ``duologue train NAME`` runs ``NAME.py``, which has a function ``recipe(preset)``. Not here: sizes
(``presets``) and losses that two stages share (``losses``).
"""
