"""What carries a Realtime session's messages: the loop that serves one over any transport, and the WebSocket. WebRTC
calls are in ``webrtc``."""
