"""`python -m intcollector`."""

from .cli import main

main()
