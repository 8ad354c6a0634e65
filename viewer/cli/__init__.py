"""The viewer's command."""
