"""Many pairs of traces: a table of them, workers that compare them, results that can be resumed, their summary."""
