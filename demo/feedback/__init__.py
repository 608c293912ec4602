"""``duologue feedback``: rounds of answers, rewards and training, and conversations with a simulated user."""
