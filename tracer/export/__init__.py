"""Traces for other tools: steps as rows, a step's tree as a graph."""
