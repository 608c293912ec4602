"""Speech synthesisers, one file each: what :class:`..engine.Engine` says, LETTER_A, language, require and speak.

``voices=NAME:VOICE`` finds NAME.py. Files without a ``speak`` are what an engine needs besides.
"""
