"""The attacker: kills, interrupts, starves and confuses the unmodified program, and looks whether anything was lost.

`python -m tests.torture` runs the long campaign; tests/integration/test_torture_*.py run a slice of the same trials.
"""
