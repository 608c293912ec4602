"""Reports: the folder of a run, tables, plots, pages, comparison."""
