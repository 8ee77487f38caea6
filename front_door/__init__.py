"""What ``./nexus`` does, with the standard library alone: set up, start, stop, test.

``main`` reads the command line; ``up`` and ``down`` are the two long commands;
``environment``, ``tools`` and ``assets`` each bring one part of what Nexus needs, and
skip it when a stamp says that it is there. Nothing here imports Django: the server is
reached through its commands (``manage.py``, ``nexusctl``) and its HTTP address.
"""
