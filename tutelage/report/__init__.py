"""Showing a comparison: an HTML page, a terminal table and a Markdown table."""
