"""The errors a user may see, each with the exit code of a command that ends with it."""


class RareTokensError(Exception):
    """Base of every error meant for a user: one or two sentences that say what is wrong, which value, what to do.

    Attributes:
        exit_code: the process's exit code when the error reaches the command line.
    """

    exit_code = 1


class UserError(RareTokensError):
    """The user's input cannot be used: a path, a value, a model, a query (exit code 2)."""

    exit_code = 2


class OptionError(UserError):
    """An option's value that no checkpoint of the model can have: a series does not go on after it."""


class QualityError(RareTokensError):
    """Data that failed its checks was refused and is not visible to any query (exit code 3)."""

    exit_code = 3


class LockedError(RareTokensError):
    """Another process holds the warehouse or the run; the message names its PID (exit code 4)."""

    exit_code = 4
