"""The formats that operating systems are shipped in, read as plain data.

``disks`` opens a disk image (raw or qcow2) for reading at any offset, ``ext4_reader`` walks the
file system on it, ``e2fsprogs`` runs the system's own ext4 tools. Nothing here mounts anything
or needs privileges, and every number in a file is doubted: images come from strangers.
"""
