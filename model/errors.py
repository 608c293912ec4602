"""The one error a user sees: a single line that says what was wrong, with what value, and what would be right."""


class DuologueError(ValueError):
    """Bad input. The command line prints its message without a traceback and exits with status 2."""
