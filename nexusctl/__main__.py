"""``python -m nexusctl``."""

from nexusctl.main import run

run()
