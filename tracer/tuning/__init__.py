"""How well a run's trees fit its teacher: accepted lengths, ranks, calibration, and what others would have accepted.

Numbers come from the records only. Nothing here knows how they are printed or drawn.
"""
