"""How fast the pipeline is beside sequential decoding on the same stages, and beside what is possible on paper."""
