"""Readiness of hosts: TCP, SSH banner, authentication, cloud-init. Knows neither OpenTofu nor Ansible."""
