"""The tables: writing their rows, compacting their files, and SQL over them (DuckDB).

What a row means belongs to the room that writes it.
"""
