"""What every training program needs and no family is named in: settings, pictures, loop, checkpoint, record.

A program is its `Settings`, the network in training, a `loop.Recipe` of them, and one `command.Program`. Only
`painter` is a network, until it is a family of the package.
"""
