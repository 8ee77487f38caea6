"""Which operations of this app workers can run."""
