"""Kernels built from source: Anvil. A fragment of options, a verified tarball, a compiler."""
