"""Drives as files to take away and bring in.

``archive`` writes and reads Nexus's own form, ``incoming`` tells what somebody has sent and
writes the disk in it into a ``target``. Like storage, nothing here knows of models or HTTP.
"""
