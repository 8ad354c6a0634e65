"""Before any test imports torch: one thread each, and modules that are compiled once.

The models are tiny, so that more threads win nothing; and where something else runs on the machine, threads that wait
for each other make a suite of minutes one of hours.
"""

from __future__ import annotations

import os
import sys

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # children inherit it
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the hub's library is imported

# The suite starts some thousand commands, each of which would otherwise compile its modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# On a CPU with AMX, torch's half-precision attention asks oneDNN whether it may use AMX, and then fails in its own
# kernels ("pack_vnni2 is only supported when avx512 is supported") if it was told to do without AVX-512. A CPU that
# really has no AVX-512 has no AMX either.
if os.environ.get("ATEN_CPU_CAPABILITY") in {"avx2", "default"}:
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")

# How long an example takes says what else runs on the machine. Speed is measured by the programs in benchmarks/.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
