"""The command ``mist``: each subcommand parses its arguments and calls one function of a lower layer."""
