"""Image classification: one image, one of K classes. The classic small CNN, or the user's own model."""
