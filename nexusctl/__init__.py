"""nexusctl: the command line of Nexus, a client of its HTTP API."""

#: The version of the whole distribution; the command says it without reading anything.
__version__ = "0.1.0"
