"""Engines that make tokens, what is known of their vocabularies, where texts may be cut."""
