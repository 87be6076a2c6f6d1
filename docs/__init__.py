"""Documentation, and in make/ what writes parts of it."""
