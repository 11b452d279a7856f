"""The steps of the commands, in order, as users know them. tests/e2e/test_library.py holds the program to them."""

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
