"""Whether an asset is what was asked for and a scene can be used. One type of verdict; see `scenegen.checks.run`."""
