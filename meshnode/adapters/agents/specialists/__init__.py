"""Specialists that work offline: small models, rules and tools, one capability each.

Each module offers ``create()``, takes one document or one file a call, and imports
what is heavy only where it is opened or first run.
"""

#: What to do when a library that a specialist needs is absent.
INSTALL_HINT = "pip install 'meshnode[specialists]'"
