"""The errors seqdens raises for a user to read: one sentence with the name, the value, what is possible."""


class SeqdensError(Exception):
    """Anything a user can mend; the command line prints its text alone and exits with `exit_status`."""

    exit_status = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(SeqdensError):
    """An unknown name, option or value."""

    exit_status = 2


class DataError(SeqdensError):
    """Files that are missing, damaged or not what they were said to be."""


def printable(text: str) -> str:
    r"""`text` in one line, with what would steer a terminal, or hide, written as an escape: it may be from a file.

    >>> print(printable("caf\xe9 \x1b[2J\n"))
    café \x1b[2J\n
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
