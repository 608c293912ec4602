"""Texts: as they are written, as they are spoken, and from a chat model behind an endpoint."""
