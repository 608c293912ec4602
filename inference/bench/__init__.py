"""Measurements of cost, one file each: ``duologue bench NAME`` runs ``run`` of ``NAME.py``.

Its keyword arguments but ``out`` and ``say`` are the settings. Files without a ``run`` are what several share.
"""
