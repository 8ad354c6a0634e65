"""Before any test imports torch: one thread each.

The models are tiny, so that more threads win nothing; and where something else runs on the machine, threads that wait
for each other make a suite of minutes one of hours.
"""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # children inherit it

# How long an example takes says what else runs on the machine. Speed is measured by the programs in benchmarks/.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
