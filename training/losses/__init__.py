"""Losses, discriminators, and the targets that a stage derives from its input."""
