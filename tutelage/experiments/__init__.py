"""Methods times seeds: choices, fixtures, rows and paired differences."""
