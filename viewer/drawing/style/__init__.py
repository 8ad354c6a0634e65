"""Colours, fonts and style sheets of everything that is drawn."""
