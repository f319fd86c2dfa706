"""What every training program needs and no family is named in: settings, pictures, loop, record, command.

A program is its `Settings`, the network in training, a `loop.Recipe` of them, and one `command.Program`.
Checkpoints, crops and losses that a command of the package needs, too, are in `urst_tiles.learning`.
"""
