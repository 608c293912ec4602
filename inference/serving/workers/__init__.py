"""Workers, processes that run sessions; dynamic batching of their steps; the engine that hands out session slots."""
