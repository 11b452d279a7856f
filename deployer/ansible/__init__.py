"""Ansible: inventory and variables in, events out. Knows no states and no OpenTofu.

Exports nothing: the child imports its few modules from here, and must not load pydantic with them.
"""
