"""Numbers over a whole run, and their charts."""
