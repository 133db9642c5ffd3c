"""What engines on this machine share."""
