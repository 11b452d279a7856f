"""The states, and the steps of the commands in order, as users know them. What holds the program to them is in
tests/unit/test_environment_transitions.py and tests/e2e/test_library.py."""

STATES = (
    "created",
    "provisioning",
    "provision_failed",
    "provisioned",
    "configuring",
    "configure_failed",
    "configured",
    "destroying",
    "destroy_failed",
    "destroyed",
)

PROVISION = (
    "render_tofu",
    "tofu_init",
    "tofu_validate",
    "tofu_plan",
    "tofu_apply",
    "read_outputs",
    "wait_ssh",
    "wait_cloud_init",
)
DESTROY = ("tofu_destroy", "clean_up")
