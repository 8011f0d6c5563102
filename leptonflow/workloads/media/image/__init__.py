"""Images: decoding of hostile bytes, damage, canonical form, scale of values."""
