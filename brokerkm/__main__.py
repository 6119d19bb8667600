"""`python -m brokerkm` is the command `brokerkm`."""

from brokerkm.cli import main

main()
