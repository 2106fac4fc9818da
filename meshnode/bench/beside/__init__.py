"""What users would pick instead, each measured in a process of its own beside ours.

Those that need packages which this installation lacks run in the extra environment
(:mod:`meshnode.bench.extra`): they find this package there and nothing that it depends
on, so they import :mod:`meshnode.bench.beside.turns`, their library, and no more.
"""
