"""`python -m seqdens` is the command `seqdens`."""

from seqdens.cli import main

main()
