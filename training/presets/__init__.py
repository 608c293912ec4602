"""Sizes and settings by name, and scripts that train a bundled model from nothing."""
