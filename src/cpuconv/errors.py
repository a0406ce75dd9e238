"""The one exception that is the library's own; everything else is ValueError, TypeError or MemoryError."""


class UnsupportedError(ValueError):
    """A named algorithm cannot do the problem, or none fits the accuracy and workspace asked for; the message says why."""
