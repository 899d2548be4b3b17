"""Benchmarks of fastact against pure NumPy and whatever other libraries are installed: ``fastact bench``."""
