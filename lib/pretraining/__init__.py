"""Pre-training: small encoders made from nothing."""

from lib.encoders.checkpoints import library

library()  # its own logs and bars are off
