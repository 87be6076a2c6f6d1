"""intcollector."""
