"""Studies: reproduce a table, draw a figure, write a report."""
