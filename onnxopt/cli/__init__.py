"""The command line. Nothing here is imported by other rooms, and nothing heavy before a command runs."""
