"""The API's endpoints over HTTP, one file each, and what only they need: captions, sound files, fields of requests.
Who may come in, and limits, are in ``http``; sessions over WebSocket in ``realtime``."""
