"""Kernels of tree attention, one file each, behind one registry."""
