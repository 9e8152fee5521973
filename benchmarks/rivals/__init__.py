"""What the engine is compared with: each module is a whole program, as people run it today.

Each is written here from the public behaviour of what it is named after. All take the same
arguments and print one line of JSON at the end, see `common`.
"""
