"""What is drawn of a trace, as HTML and SVG strings: pure functions that the pages and the report share."""
