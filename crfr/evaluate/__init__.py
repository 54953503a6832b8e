"""Stage 5, model -> rows: embeddings at every resolution, protocols, verification, the sweep."""
