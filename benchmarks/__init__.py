"""What users wait for, measured against what cannot be avoided. Standard library only; `python -m benchmarks`."""
