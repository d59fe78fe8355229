"""Flag tables: what a row is, how rows are parsed, which compiler versions they hold for."""
