"""The formats that operating systems are shipped in, read as plain data.

``rootfs`` is the one way in: it finds out a file's format and fills a tree from it. Below it,
``disks`` opens a disk image (raw or qcow2) for reading at any offset and ``ext4_reader`` walks the
file system on it; ``tar_reader`` reads archives, ``oci`` container images, ``compression`` what
is packed, and ``filling`` adds their entries to a tree. ``e2fsprogs`` runs the system's own ext4
tools. Nothing here mounts anything or needs privileges, and every number in a file is doubted:
images come from strangers.
"""
