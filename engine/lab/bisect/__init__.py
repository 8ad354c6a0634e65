"""One step of two traces, run in both configurations and narrowed: to the phase, the layer, the operation."""
