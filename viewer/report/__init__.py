"""The static report: one HTML file with the trees of a trace, or of where two part. No server, nothing fetched."""
