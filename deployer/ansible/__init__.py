"""Ansible: inventory and variables in, events out. Knows no states and no OpenTofu."""
