"""The field as a ground of validation: what others published, predicted from the catalogue alone."""
