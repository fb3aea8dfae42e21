"""place: which device holds which layers."""
