"""Agents for real: functions, commands, embedded models, offline specialists."""
