"""What raw examples are made of: images, and what reads them. No labels, no files, no models."""
