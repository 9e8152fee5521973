"""`python -m clusterlm` is the same program as `clusterlm`."""

from clusterlm.cli import main

if __name__ == "__main__":
    main()
