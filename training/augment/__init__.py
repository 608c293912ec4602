"""Augmentation: other voices, rooms, channels, noise; masks over log-mel."""
