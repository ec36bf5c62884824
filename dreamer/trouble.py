"""Errors that a retry may fix, unlike settings that are wrong.

Whoever starts runs tries again after the one, and gives up after the other:
`dreamer.train` has an exit code for each.
"""

from dreamer.options import ConfigError


class PassingError(ConfigError):
    """What hinders a start now, such as a full disk; one line."""
