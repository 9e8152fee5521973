"""The login side: submits, reads and cancels. Never imports torch, decides no state itself."""
