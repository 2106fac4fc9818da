"""One file, one story: given, when, then."""
