"""The report of an evaluation: one web page with tables, plots and players."""
