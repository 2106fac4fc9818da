"""Many nodes in virtual time, from one seed."""
