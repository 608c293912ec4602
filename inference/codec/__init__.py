"""Recordings as files of codes, at any length, and pairs of original and copy."""
