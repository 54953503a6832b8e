"""Stage 1, records -> batches: training images and labels, verification benchmarks, the stream."""
