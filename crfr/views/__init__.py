"""Stage 2, batches -> views: crop, flip, colour and degradation of images on the device."""
