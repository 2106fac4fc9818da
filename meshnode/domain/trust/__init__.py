"""Trust from evidence: who is right how often, when an answer may be taken, who gets work.

Pure: time and chance are given.  ``docs/trust.md`` has the model in one place.
"""
