"""Stage 6, rows -> page: one self-contained HTML page from sweep directories; imports no JAX."""
