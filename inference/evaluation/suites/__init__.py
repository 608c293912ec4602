"""One file a suite: ``duologue evaluate NAME`` runs ``run`` of ``NAME.py``, whose keyword arguments say what it takes.

``model``, ``outputs``, ``data`` and ``reports`` are given by options, all others as KEY=VALUE. Not here: measures
(``metrics``), what grades (``judges``), what is asked (``inputs``), what is written (``report``).
"""
