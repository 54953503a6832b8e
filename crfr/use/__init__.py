"""Stage 7: models put to use."""
