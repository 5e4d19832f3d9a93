"""The errors seqdens raises for a user to read: one sentence with the name, the value, what is possible."""


class SeqdensError(Exception):
    """Anything a user can mend; the command line prints its text alone and exits with `exit_status`."""

    exit_status = 1


class UsageError(SeqdensError):
    """An unknown name, option or value."""

    exit_status = 2


class DataError(SeqdensError):
    """Files that are missing, damaged or not what they were said to be."""
