"""The commands, a module for each kind of thing; each says what to call and what to print."""
