"""The charts of the report, drawn by matplotlib as inline SVG that takes its text colour from the page."""
