"""What a diff found, for people and for CI: one file a format, each rendering the same card."""
