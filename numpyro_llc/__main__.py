"""``python -m numpyro_llc``."""

from numpyro_llc.cli import main

if __name__ == "__main__":
    main()
