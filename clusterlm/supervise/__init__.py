"""The batch step on the head node: observe -> judge -> act, one attempt after another."""
