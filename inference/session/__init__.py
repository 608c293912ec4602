"""Full duplex: a chunk of the microphone in, a chunk of the loudspeaker out, and events.

Here: the session, its state, turn-taking (docs/turns.md). Not here: clocks, threads, sockets (``serving``).
"""
