"""Recipe → plan → run record, with a cache, a lock, and the reason each step ran."""
