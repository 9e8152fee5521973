"""A cluster that is reached over SSH: the clusterlm there does what is asked, this one asks it."""
