"""``duologue evaluate``: suites, what they ask, how they judge and count, and the report."""
