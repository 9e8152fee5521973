"""The login side: submits, reads and cancels. Never imports torch, never decides a state by itself."""
