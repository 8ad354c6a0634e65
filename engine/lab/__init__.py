"""What the engine is tested with: runs again, bisection, deliberate faults, benchmarks, training.

Nothing outside this room and ``cli`` imports it.
"""
