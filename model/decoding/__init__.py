"""How the words of a transcript or a reply are chosen from scores.

Here: search and sampling. Not here: networks that make the scores.
"""
