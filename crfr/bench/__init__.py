"""Speed of the very functions that train and sweep, timed."""
