"""Environments on disk: repository, lock, audit trail. Refuses to know tools.

Imports are the caller's choice of module: `status` reads a state and must not pay for what only a writer
needs, which is why filelock is imported by `lock.locked` alone.
"""
