"""The voice-chat page: what serves it. Its static files lie in ``demo/assets``."""
