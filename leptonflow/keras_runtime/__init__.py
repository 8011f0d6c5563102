"""Keras, imported in silence: seed, save, load, predict. Which model is built does not belong here."""
