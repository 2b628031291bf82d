"""SynOS as a filesystem: a userspace operating-system personality behind a mount."""

__version__ = "0.1.0"
