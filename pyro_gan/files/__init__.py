"""Files that are written whole or not at all, that show every change, and that run no code when they are read."""

from pyro_gan.files.place import FileError, load, save, writer

__all__ = ["FileError", "load", "save", "writer"]
