"""Tests, one file a module; batches.py and servers.py help them."""
