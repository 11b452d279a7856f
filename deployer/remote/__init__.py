"""Readiness of hosts: TCP, SSH banner, authentication, cloud-init. Knows neither OpenTofu nor Ansible."""

from deployer.remote.cloud_init import CloudInit, CloudInitOutcome
from deployer.remote.host import who_answers
from deployer.remote.host_keys import forget_host_key
from deployer.remote.readiness import wait_cloud_init, wait_ssh
from deployer.remote.ssh import Target, ssh_argv

__all__ = [
    "CloudInit", "CloudInitOutcome", "Target", "forget_host_key", "ssh_argv", "wait_cloud_init", "wait_ssh",
    "who_answers",
]  # fmt: skip
