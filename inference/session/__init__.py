"""Full duplex: a chunk of the microphone in, a chunk of the loudspeaker out, and events.

Here: the session, its state and the turn-taking policy. Not here: clocks, threads, sockets (``serving``).
"""
