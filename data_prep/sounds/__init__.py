"""Sounds that are no speech, made rather than recorded: for data sets, and to augment them. No recording is read."""
