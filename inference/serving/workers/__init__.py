"""Workers, processes that run sessions; dynamic batching of their steps; the pool that hands out session slots."""
