"""Environments on disk: repository, atomic write, lock, audit trail. Refuses to know tools.

Imports are the caller's choice of module: `status` reads a state and must not pay for the lock.
"""
