"""Pre-training: small encoders made from nothing."""
