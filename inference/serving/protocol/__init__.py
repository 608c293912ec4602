"""OpenAI's Realtime protocol as values: events, items, formats, settings, responses. No sockets, no model."""
