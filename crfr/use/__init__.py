"""Stage 7, put to use: photos -> faces -> embeddings -> decisions, indexes, searches; exports."""
