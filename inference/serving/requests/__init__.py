"""One question outside any conversation, and its answer: over HTTP, or for a response beside a conversation."""
