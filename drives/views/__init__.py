"""The pages of drives, of their snapshots and of the storage."""
