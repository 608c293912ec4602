"""What a model says, and what that is worth: several answers to a question, rewards, pairs of answers, conversations
with a simulated user. Not here: what learns from them (``training``).
"""
