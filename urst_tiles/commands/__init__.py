"""The commands of the command line, one module for each group: they parse and print, nothing more."""
