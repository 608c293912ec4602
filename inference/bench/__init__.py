"""The benches of ``duologue bench``, one file each, and what they share."""
