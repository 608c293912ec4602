"""``duologue serve``: OpenAI's Realtime protocol and REST over sessions. It moves bytes; it decides nothing."""
