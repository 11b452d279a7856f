"""Child processes: the only place that starts one, signals one, or says whether one lives. Knows no tool."""

from deployer.process.identity import ProcessIdentity, end_trees, identity_of, is_alive, own_identity, still_in
from deployer.process.run import Context, Deadline, Interrupts, Outcome, Register, Request, Stream, capture, run

__all__ = [
    "Context", "Deadline", "Interrupts", "Outcome", "ProcessIdentity", "Register", "Request", "Stream", "capture",
    "end_trees", "identity_of", "is_alive", "own_identity", "run", "still_in",
]  # fmt: skip
