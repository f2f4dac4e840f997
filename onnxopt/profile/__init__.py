"""How fast, how big, on which machine: measures that read an engine and change nothing."""
