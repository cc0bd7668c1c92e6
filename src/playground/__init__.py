"""``python -m src.play``: a local page on which images are attacked and purified."""
