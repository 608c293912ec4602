"""What decides on a user's turn from one chunk: voice activity and the monitor.

Here: networks. Not here: the policy over their outputs (``inference/session/policy.py``).
"""
