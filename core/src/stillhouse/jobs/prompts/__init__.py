"""What a row's columns become: the prompt, by their shape, by a column that is named, or by a template.

Pure functions over columns: what a row lacks is a `ValueError` with the message of that row.
"""
