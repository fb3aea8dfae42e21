"""The doors by which files come in, by kind of file."""
