"""One client's session of the Realtime protocol: its conversation, pacing, and requests out of band."""
