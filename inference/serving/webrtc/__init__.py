"""WebRTC calls: a browser's microphone and loudspeaker as Opus tracks, and the Realtime protocol's events on a data
channel. By aiortc (``pip install duologue[webrtc]``)."""
