"""Environments of machines, from a short YAML file to configured hosts and back to nothing."""

__version__ = "0.1.0"
