"""Grammars: closed sets of texts, of which one was said.

Here: JSGF, and its decoding graph. Not here: files, which belong to :mod:`duologue.inference.assistant.word_lists`.
"""
